"""Dumb object storage: one contract, one file per service."""
