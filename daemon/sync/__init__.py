"""Moves sealed bytes to providers. Sees no plaintext and no key."""
