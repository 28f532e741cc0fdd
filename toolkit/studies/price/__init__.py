"""Packing at a price beside plain rounding: bytes at equal accuracy."""
