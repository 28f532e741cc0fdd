"""Checkpoints that other programs wrote: found in their file, renamed, converted, and their zeros kept."""
