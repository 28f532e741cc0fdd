"""Where data of the user's own come from: a kind a file, and a line in `kinds`."""
