"""How hard a writer tries, and what it therefore writes of each tensor.

fast      fixed width, or one Huffman code over all levels, or a bitmap and a code over nonzero levels; one pass
default   all Huffman encodings, tables shared between tensors where that is smaller; two passes
max       mixed contexts too: slower to write and to read, the smallest
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from modelpress.export.choices import Effort
from modelpress.export.coding.byte_parts import PartWriter
from modelpress.export.press.encodings import (
    BFLOAT16,
    BYTE_PLANES,
    CODED_PLANES,
    FLOAT16,
    HUFFMAN_IDS,
    MIXED,
    PACKED,
    RAW,
    byte_planes,
    coded_planes,
    half,
    huffman_blob,
    mixed_contexts,
    packed,
    raw,
)
from modelpress.export.press.encodings.bitmap import BitmapCoder
from modelpress.export.press.encodings.choice import Choice, choose, choose_alone
from modelpress.export.press.encodings.dense import DenseCoder
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.encodings.huffman_blob import NO_SHARED, HuffmanPlan
from modelpress.export.press.encodings.slab_coder import SlabCoder
from modelpress.export.quantized import QuantizedTensor, Tensor

_FAST_CODERS = (DenseCoder, BitmapCoder)
_DEFLATED_UP_TO = 1 << 20  # bytes; larger arrays are left to the faster coded planes

Blob = tuple[int, PartWriter]  # encoding id, content


def huffman_plans(tensor: QuantizedTensor, coders: Iterable[type[SlabCoder]]) -> list[HuffmanPlan]:
    """What the coders would write, less those that cannot be the smallest whatever tables they may share."""
    spec = tensor.spec
    plans = huffman_blob.survey(tensor, [coder for kind in coders for coder in kind.candidates(spec)])
    best = min(plan.n_bytes(NO_SHARED) for plan in plans)
    return [plan for plan in plans if plan.entropy_bytes() <= best]


def encode_array(array: npt.NDArray[np.generic]) -> Blob:
    """The smallest encoding of an array that is not quantized; of equal ones the fastest to decode."""
    planes = coded_planes.survey(array)
    ways: list[tuple[int, int, Callable[[], PartWriter]]] = [(array.nbytes, RAW, partial(raw.encode, array))]
    if half.fits_float16(array):
        ways.append((2 * array.size, FLOAT16, partial(half.encode_float16, array)))
    elif half.fits_bfloat16(array):
        ways.append((2 * array.size, BFLOAT16, partial(half.encode_bfloat16, array)))

    ways.append((planes.n_bytes, CODED_PLANES, partial(coded_planes.encode, array, planes)))
    deflated = byte_planes.encode(array) if array.nbytes <= _DEFLATED_UP_TO else None
    if deflated is not None:
        ways.append((deflated.n_bytes, BYTE_PLANES, lambda: deflated))

    _, number, write = min(ways, key=lambda way: way[0])
    return number, write()


@dataclass(frozen=True)
class Plan:
    """What is written of the quantized tensors of a file.

    Attributes:
        choice: The Huffman plans and the tables they share.
        numbers: Of the quantized tensors, in the choice.
        mixed: Whether mixed contexts are tried too.
    """

    choice: Choice
    numbers: Mapping[str, int]
    mixed: bool

    def encode(self, name: str, tensor: Tensor, state: FileState) -> Blob:
        """The blob of one tensor; tensors must come in file order."""
        if not isinstance(tensor, QuantizedTensor):
            return encode_array(tensor)

        plan = self.choice.plans[self.numbers[name]]
        if self.mixed and tensor.codes.size and mixed_contexts.holds(tensor.spec):
            before = state.mixing.copy()
            writer = mixed_contexts.encode(tensor, state)
            limit = packed.size(tensor) if plan is None else plan.n_bytes(self.choice.shared)
            if writer.n_bytes < limit:
                return MIXED, writer
            state.mixing = before

        if plan is None:
            return PACKED, packed.encode(tensor)

        return HUFFMAN_IDS[type(plan.coder)], huffman_blob.write(tensor, plan, self.choice.shared)


def plan_file(
    tensors: Mapping[str, Tensor], effort: Effort, *, on_tensor: Callable[[str], None] | None = None
) -> Plan:
    """Decide how the quantized tensors of a file are written.

    Args:
        tensors: All of them; each is asked for once.
        effort: How hard to try.
        on_tensor: Called with the name of every tensor that has been looked at.
    """
    coders = _FAST_CODERS if effort == "fast" else tuple(HUFFMAN_IDS)
    names, plans, limits = [], [], []
    for name, tensor in tensors.items():
        if isinstance(tensor, QuantizedTensor):
            names.append(name)
            plans.append(huffman_plans(tensor, coders))
            limits.append(packed.size(tensor))
        if on_tensor is not None:
            on_tensor(name)

    # with mixed contexts in most tensors, shared tables would serve few
    choice = choose(plans, limits) if effort == "default" else choose_alone(plans, limits)
    return Plan(choice, {name: number for number, name in enumerate(names)}, mixed=effort == "max")
