"""The daemon at work: what is decided elsewhere (`conducting`, `pace`, `session_rules`) is done here, on threads."""
