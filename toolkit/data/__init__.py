"""Image sets as arrays, and how they get onto a device."""
