"""From a trained network to a compressed one."""
