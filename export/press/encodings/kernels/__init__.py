"""Coders of whole kernels: zero masks and levels, or rows of signs and magnitudes."""
