"""What the tensors of one file have in common while they are coded, in file order."""

from dataclasses import dataclass, field

from export.context_mixing import ContextModel
from export.encodings.huffman_blob import Group


@dataclass
class FileState:
    """State of a reader or writer.

    Attributes:
        shared: Groups of code tables.
        mixing: The adaptive model of encoding 10, after all tensors so far.
    """

    shared: tuple[Group, ...] = ()
    mixing: ContextModel = field(default_factory=ContextModel)
