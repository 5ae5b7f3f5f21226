"""What runs on: the session, and the process that alone holds what opens the vault."""
