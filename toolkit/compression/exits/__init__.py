"""Early exits on the way through the chain: attached, trained, and given their thresholds."""
