"""The `study` commands."""
