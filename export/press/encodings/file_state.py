"""What the tensors of one file have in common while they are coded, in file order."""

from dataclasses import dataclass, field
from functools import cached_property

from modelpress.export.coding.context_mixing import ContextModel
from modelpress.export.coding.core import core
from modelpress.export.coding.core_functions import CoreFunctions
from modelpress.export.press.encodings.huffman_blob import Group, pack_groups


@dataclass
class FileState:
    """State of a reader or writer.

    Attributes:
        shared: Groups of code tables.
        functions: The compiled codes; None where NumPy does the work, for the whole file.
    """

    shared: tuple[Group, ...] = ()
    functions: CoreFunctions | None = field(default_factory=core)

    @cached_property
    def opened(self) -> object:
        """The shared tables, for the compiled codes; None where there are none."""
        if self.functions is None or not self.shared:
            return None
        return self.functions.open_shared(pack_groups(self.shared))

    @cached_property
    def mixing(self) -> ContextModel:
        """The adaptive model of encoding 10, after all tensors so far."""
        return ContextModel()
