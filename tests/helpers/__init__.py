"""What several tests share: models, files, ways to run commands."""
