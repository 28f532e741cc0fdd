"""What the tensors of one file have in common while they are coded, in file order."""

from dataclasses import dataclass
from functools import cached_property

from modelpress.export.coding.context_mixing import ContextModel
from modelpress.export.press.encodings.huffman_blob import Group


@dataclass
class FileState:
    """State of a reader or writer.

    Attributes:
        shared: Groups of code tables.
    """

    shared: tuple[Group, ...] = ()

    @cached_property
    def mixing(self) -> ContextModel:
        """The adaptive model of encoding 10, after all tensors so far."""
        return ContextModel()
