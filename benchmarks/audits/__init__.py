"""Is it what it claims to be? What the runtime fused, and whether all ways lead to the same numbers."""
