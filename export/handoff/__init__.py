"""What is handed over beside the artifact: the bundle, its manifest and its scripts."""
