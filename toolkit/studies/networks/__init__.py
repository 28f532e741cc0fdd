"""Ten networks of other people, from an untrained module to every file that is made of it."""
