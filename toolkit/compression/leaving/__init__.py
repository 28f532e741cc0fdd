"""What a run writes and measures of a network that is left early."""
