"""One measurement a file: size, sparsity, accuracy, latency, memory."""
