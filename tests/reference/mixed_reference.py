"""Encoding 10: mixed contexts."""

from tests.reference.streams import Refused


def decode_mixed(stream, grid, n_elements, shared):
    """Levels of a tensor; ``stream`` stands behind the grid."""
    raise Refused("mixed contexts are not part of the specification yet")
