"""Secrets and key slots. Knows no vault format."""
