"""The commands of the chain: all of it, and stage by stage."""
