"""Capture, sealing, upload and restore, and the commands around them."""
