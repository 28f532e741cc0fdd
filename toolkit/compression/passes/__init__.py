"""The passes of the chain, one a file; each takes a network and the work, and returns the network after it."""
