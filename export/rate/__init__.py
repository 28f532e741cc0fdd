"""Weights rounded at a price per bit: each to the code that is cheapest in error and in bytes."""
