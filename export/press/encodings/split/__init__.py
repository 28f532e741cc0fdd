"""Encodings 14 and 15: elements as levels and bits. `elements` says how each is divided, `blob` what is written."""
