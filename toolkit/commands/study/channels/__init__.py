"""The `study channels` command."""
