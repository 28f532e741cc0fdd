"""Which weights are removed, and when."""
