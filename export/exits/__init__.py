"""Early exits of a model: what its metadata say of them, thresholds, and the graphs that leave early."""
