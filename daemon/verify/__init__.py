"""Verifying: that storage holds what was sealed, and that it can be restored."""
