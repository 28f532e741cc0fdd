"""Prune, quantize, entropy-code and export neural networks, and measure the files that come out."""
