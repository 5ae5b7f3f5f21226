"""The configuration: one YAML file, its typed model, and the root of every error."""
