"""A published series on sparse linear models, repeated; and the same for one's own problem."""
