"""Encoding 10: mixed contexts."""

# TEMPORARY: the product's own, until the specification says how

from export.byte_parts import PartReader
from export.encodings import mixed_contexts
from export.encodings.file_state import FileState
from export.errors import ArtifactError
from tests.reference.streams import Refused

_SLAB_ELEMENTS = 1 << 20
MixedModel = FileState


def decode_mixed(stream, grid, mixed):
    from export.encodings.spec import TensorSpec

    reader = PartReader(stream.data)
    try:

        class Sink:
            def __init__(self, g):
                self.g, self.l = g, []

            def put(self, start, levels):
                self.l += levels.tolist()

            def tensor(self):
                return self.l

        keep = mixed_contexts.LevelSink
        mixed_contexts.LevelSink = Sink
        try:
            levels = mixed_contexts.decode(reader, TensorSpec(grid.shape, grid.element_type), mixed)
            reader.finish()
        finally:
            mixed_contexts.LevelSink = keep
    except ArtifactError as error:
        raise Refused(str(error)) from None
    stream.position = 8 * len(stream.data)
    return levels
