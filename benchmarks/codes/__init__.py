"""The codes themselves: sizes in every form, speed, scaling with the size of a tensor."""
