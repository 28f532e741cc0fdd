"""Image sets as arrays; reading them needs no torch."""
