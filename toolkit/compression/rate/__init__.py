"""A price per byte while a network is trained."""
