"""What is copied into every bundle: scripts for Python 3.9 that import nothing of this project, and a template."""
