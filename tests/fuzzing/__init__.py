"""Fuzzing the core and the reader in C with libFuzzer; see CONTRIBUTING.md."""
