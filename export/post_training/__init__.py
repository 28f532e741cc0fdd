"""Weights on a grid without training, and the ranges of activations."""
