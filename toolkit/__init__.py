"""The user's face and everything that trains: models, data, pruning, quantization, recipes, commands."""
