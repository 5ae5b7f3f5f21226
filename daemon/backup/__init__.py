"""From a source to a committed snapshot: draft, seal, publish."""
