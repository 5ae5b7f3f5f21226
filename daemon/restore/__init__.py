"""Restoring: plan, then apply. Needs a provider and an unlocked vault; no daemon and no local state."""
