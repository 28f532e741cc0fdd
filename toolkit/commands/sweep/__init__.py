"""The command that searches recipes."""
