"""What a person is told of what the daemon does: a log, notices on the desktop and elsewhere, a heartbeat, metrics."""
