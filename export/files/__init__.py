"""Files on disk: written whole or not at all, mapped, read in pieces."""
