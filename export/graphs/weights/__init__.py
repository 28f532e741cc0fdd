"""Which tensors of a graph are weights: found through nodes that move them, in nested graphs and in functions."""
