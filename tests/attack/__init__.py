"""Mutants that know the format: each breaks one part of a `.press` file and makes every checksum right again."""
