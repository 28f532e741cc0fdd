"""Channels taken out of networks of many kinds: what is left, and whether it computes the same."""
