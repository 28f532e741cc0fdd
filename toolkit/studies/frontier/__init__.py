"""What a model loses at every size: packed at a series of prices."""
