"""What is on disk: consistent views of live databases, stable reads of ordinary files."""
