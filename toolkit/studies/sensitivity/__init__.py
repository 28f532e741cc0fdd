"""What each layer loses at each width, and the widths that fit a budget of bytes."""
