"""Series of experiments on one network, each beside its published figure."""
