"""The `firmware` command."""
