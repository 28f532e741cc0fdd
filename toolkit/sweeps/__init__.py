"""Searching recipes: Optuna samples and remembers, Ray places the trials."""
