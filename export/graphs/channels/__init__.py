"""Channels that no longer count: found by what depends on them, and taken out of the graph with it."""
