"""What is measured and reported: size, sparsity, fidelity, accuracy, latency. No torch."""
