"""A published series of pruning and quantization experiments, repeated."""
