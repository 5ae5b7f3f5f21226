"""What a command and its user speak with: the ceremonies of a passkey, in a process of their own."""
