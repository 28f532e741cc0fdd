"""Which weights are removed."""
