"""Networks, and the layers of them that can be pruned and quantized."""
