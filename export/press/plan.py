"""How hard a writer tries, and what it therefore writes of each tensor.

fast      fixed width, or one Huffman code over all levels, or a bitmap and a code over nonzero levels; one pass
default   all Huffman encodings, tables shared between tensors where that is smaller; two passes
max       mixed contexts too: slower to write and to read, the smallest
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from modelpress.export.choices import Effort
from modelpress.export.coding.byte_parts import PartWriter
from modelpress.export.coding.varint import pack_varint
from modelpress.export.files.blocks import is_finite
from modelpress.export.press.encodings import (
    ANY_BITS,
    BFLOAT16,
    BYTE_PLANES,
    CODED_PLANES,
    FLOAT16,
    HUFFMAN_IDS,
    LINKED,
    LZMA,
    MIXED,
    PACKED,
    RAW,
    SAME,
    SPLIT,
    SPLIT_LINKED,
    SPLIT_MIXED,
    byte_planes,
    coded_planes,
    half,
    huffman_blob,
    lzma_elements,
    mixed_contexts,
    packed,
    raw,
)
from modelpress.export.press.encodings.bitmap import BitmapCoder
from modelpress.export.press.encodings.choice import Choice, choose, choose_alone, choose_pooled, total_bytes
from modelpress.export.press.encodings.dense import DenseCoder
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.encodings.grid import grid_of
from modelpress.export.press.encodings.huffman_blob import NO_SHARED, HuffmanPlan
from modelpress.export.press.encodings.levels import LevelSource, QuantizedLevels, source_of
from modelpress.export.press.encodings.slab_coder import SlabCoder
from modelpress.export.press.encodings.split import blob as split
from modelpress.export.press.encodings.split.blob import SplitSource
from modelpress.export.press.shared_tables import with_own_tables
from modelpress.export.quantized import QuantizedTensor, Tensor
from modelpress.export.tensor_spec import carrier_of

_FAST_CODERS = (DenseCoder, BitmapCoder)
_DEFLATED_UP_TO = 1 << 20  # bytes; larger arrays are left to the faster coded planes

_LZMA_FROM = 24  # bytes; no stream is shorter
_UNLINKED_UP_TO = 1 << 15  # levels: in longer tensors linked contexts have always won
_SAME_FROM = 16  # bytes of a tensor that is worth a look for an equal one

Blob = tuple[int, PartWriter]  # encoding id, content
_Way = tuple[int, int]  # bytes, encoding id


def huffman_plans(
    tensor: QuantizedTensor | LevelSource, coders: Iterable[type[SlabCoder]]
) -> list[HuffmanPlan]:
    """What the coders would write, less those that cannot be the smallest whatever tables they may share."""
    source = source_of(tensor)
    candidates = [coder for kind in coders for coder in kind.candidates(source.spec, source.bounds)]
    plans = huffman_blob.survey(source, candidates)
    best = min(plan.n_bytes(NO_SHARED) for plan in plans)
    return [plan for plan in plans if plan.entropy_bytes() <= best]


def _unsigned_plans(
    tensor: QuantizedTensor, plans: list[HuffmanPlan], coders: Iterable[type[SlabCoder]]
) -> list[HuffmanPlan]:
    """The same for levels without a signed centre; the same plans where that is no difference."""
    if not grid_of(tensor).signed_centre:
        return plans
    unsigned = huffman_plans(QuantizedLevels(tensor, signed_centre=False), coders)
    return [replace(plan, signed_centre=False) for plan in unsigned]


def encode_array(array: npt.NDArray[np.generic]) -> Blob:
    """The smallest encoding of an array that is neither quantized nor split; of equal ones the fastest to decode."""
    _, number = _smallest(array)
    return number, _WRITERS[number](array)


def _encode_planes(array: npt.NDArray[np.generic]) -> PartWriter:
    return coded_planes.encode(array, coded_planes.survey(array))


def _deflate_planes(array: npt.NDArray[np.generic]) -> PartWriter:
    return byte_planes.encode(array) or raw.encode(array)


_WRITERS: Mapping[int, Callable[[npt.NDArray[np.generic]], PartWriter]] = {
    RAW: raw.encode,
    ANY_BITS: raw.encode,
    FLOAT16: half.encode_float16,
    BFLOAT16: half.encode_bfloat16,
    CODED_PLANES: _encode_planes,
    BYTE_PLANES: _deflate_planes,
    LZMA: lzma_elements.encode,
}


def _smallest(array: npt.NDArray[np.generic], split_bytes: int | None = None) -> _Way:
    """Bytes and encoding; `split_bytes`: what the array takes in the best encoding of split values."""
    if not is_finite(array):
        return _or_lzma(array, [(array.nbytes, ANY_BITS)], split_bytes)

    ways: list[_Way] = [(array.nbytes, RAW)]
    if half.fits_float16(array):
        ways.append((2 * array.size, FLOAT16))
    elif half.fits_bfloat16(array):
        ways.append((2 * array.size, BFLOAT16))

    ways.append((coded_planes.survey(array).n_bytes, CODED_PLANES))
    deflated = byte_planes.encode(array) if array.nbytes <= _DEFLATED_UP_TO else None
    if deflated is not None:
        ways.append((deflated.n_bytes, BYTE_PLANES))

    return _or_lzma(array, ways, split_bytes)


def _or_lzma(array: npt.NDArray[np.generic], ways: list[_Way], split_bytes: int | None) -> _Way:
    """The smallest of some ways; or an LZMA stream, which is tried where the array promises something."""
    best = min(ways, key=lambda way: way[0])
    limit = best[0] if split_bytes is None else split_bytes
    if best[0] < _LZMA_FROM or not lzma_elements.may_be_shorter(array, best[0], limit):
        return best

    n_bytes = lzma_elements.encode(array).n_bytes
    return (n_bytes, LZMA) if n_bytes < best[0] else best


@dataclass(frozen=True)
class Plan:
    """What is written of the tensors of a file.

    Attributes:
        choice: The Huffman plans and the tables they share.
        numbers: Of the tensors with levels, in the choice.
        mixed: Whether mixed contexts are tried too.
        same: Of tensors that equal an earlier one, the number of that.
        repeated: Those that are equalled: they take no mixed contexts, for readers to find them again at once.
        others: Of the arrays in the choice, the best encoding that is not Huffman's.
    """

    choice: Choice
    numbers: Mapping[str, int]
    mixed: bool
    same: Mapping[str, int]
    repeated: frozenset[str]
    others: Mapping[str, _Way]

    def encode(self, name: str, tensor: Tensor, state: FileState) -> Blob:
        """The blob of one tensor; tensors must come in file order."""
        if name in self.same:
            return SAME, PartWriter().add("header", pack_varint(self.same[name]))
        if not isinstance(tensor, QuantizedTensor):
            return self._encode_array(name, tensor, state)

        plan = self.choice.plans[self.numbers[name]]
        limit = packed.size(tensor) if plan is None else plan.n_bytes(self.choice.shared)
        if self._tries_mixed(name) and tensor.codes.size and mixed_contexts.holds(tensor.spec):
            found = _in_contexts(
                partial(mixed_contexts.encode, tensor, state), tensor.codes.size, state, limit
            )
            if found is not None:
                return (LINKED if found.linked else MIXED), found.writer

        if plan is None:
            return PACKED, packed.encode(tensor)

        source = QuantizedLevels(tensor, signed_centre=plan.signed_centre)
        return HUFFMAN_IDS[type(plan.coder)], huffman_blob.write(source, plan, self.choice.shared)

    def _encode_array(self, name: str, array: npt.NDArray[np.generic], state: FileState) -> Blob:
        number = self.numbers.get(name)
        if number is None:
            return encode_array(carrier_of(array))

        source = _split_sources(array)[0]
        plan = self.choice.plans[number]
        n_bytes, encoding = self.others[name]
        limit = n_bytes if plan is None else plan.n_bytes(self.choice.shared)
        if self._tries_mixed(name) and mixed_contexts.holds(source.spec):
            found = _in_contexts(partial(split.encode_mixed, source, state), array.size, state, limit)
            if found is not None:
                return (SPLIT_LINKED if found.linked else SPLIT_MIXED), found.writer

        if plan is None:
            packs = encoding == SPLIT
            return encoding, split.encode_packed(source) if packs else _WRITERS[encoding](carrier_of(array))
        return SPLIT, split.encode_huffman(source, plan, self.choice.shared)

    def _tries_mixed(self, name: str) -> bool:
        return self.mixed and name not in self.repeated


@dataclass(frozen=True)
class _InContexts:
    """A tensor in mixed contexts, linked or not."""

    writer: PartWriter
    linked: bool


def _in_contexts(
    encode: Callable[..., PartWriter], n_levels: int, state: FileState, limit: int
) -> _InContexts | None:
    """The smaller of what mixed and linked contexts make of a tensor, if it is shorter than the limit.

    What is not written is forgotten.
    """
    before = kept = state.mixing
    best = None
    for linked in (True, False) if n_levels <= _UNLINKED_UP_TO else (True,):
        state.mixing = before.copy()
        writer = encode(linked=linked)
        if writer.n_bytes < limit:
            best, kept, limit = _InContexts(writer, linked), state.mixing, writer.n_bytes

    state.mixing = kept
    return best


def _smallest_of_split(
    array: npt.NDArray[np.generic], source: SplitSource, plans: Iterable[HuffmanPlan]
) -> _Way:
    """As `_smallest`, or split with levels of fixed width; `plans`: how the levels may be written else."""
    n_bytes = packed.size(source)
    best = _smallest(array, min(n_bytes, *(plan.n_bytes(NO_SHARED) for plan in plans)))
    return (n_bytes, SPLIT) if n_bytes < best[0] else best


def _split_sources(array: npt.NDArray[np.generic]) -> list[SplitSource]:
    """The one way of splitting that is worth trying, if there is one."""
    return sorted(split.sources_of(array), key=packed.size)[:1]


def plan_file(
    tensors: Mapping[str, Tensor], effort: Effort, *, on_tensor: Callable[[str], None] | None = None
) -> Plan:
    """Decide how the tensors of a file are written.

    Args:
        tensors: All of them; each is asked for once.
        effort: How hard to try.
        on_tensor: Called with the name of every tensor that has been looked at.
    """
    coders = _FAST_CODERS if effort == "fast" else tuple(HUFFMAN_IDS)
    names, plans, unsigned, limits = [], [], [], []
    equal, others = _EqualTensors(), dict[str, _Way]()
    for name, tensor in tensors.items():
        if equal.add(name, tensor):
            pass
        elif isinstance(tensor, QuantizedTensor):
            names.append(name)
            plans.append(huffman_plans(tensor, coders))
            if effort == "default":
                unsigned.append(_unsigned_plans(tensor, plans[-1], coders))
            limits.append(packed.size(tensor))
        else:
            for source in _split_sources(tensor):
                names.append(name)
                plans.append(huffman_plans(source, coders))
                unsigned.append(plans[-1])
                others[name] = _smallest_of_split(carrier_of(tensor), source, plans[-1])
                limits.append(others[name][0])
        if on_tensor is not None:
            on_tensor(name)

    if effort == "default":
        # with whole bits for every symbol, which centre is better is a matter of a few bytes in a thousand
        choice = min(
            (choose(some, limits) for some in (plans, unsigned)), key=lambda found: total_bytes(found, limits)
        )
        # tensor by tensor, too: signs of one centre pool better with some, those of the other with others
        both = [a if a is b else [*a, *b] for a, b in zip(plans, unsigned, strict=True)]
        choice = with_own_tables(choose_pooled(choice, both, limits))
    else:  # with mixed contexts in most tensors, shared tables would serve few
        choice = choose_alone(plans, limits)
    numbers = {name: number for number, name in enumerate(names)}
    return Plan(
        choice,
        numbers,
        mixed=effort == "max",
        same=equal.same,
        repeated=frozenset(equal.repeated),
        others=others,
    )


class _EqualTensors:
    """Finds tensors that equal an earlier one, bit for bit."""

    def __init__(self) -> None:
        self.same: dict[str, int] = {}
        self.repeated: set[str] = set()
        self._first: dict[bytes, tuple[int, str]] = {}
        self._n_seen = 0

    def add(self, name: str, tensor: Tensor) -> bool:
        """Whether this one does."""
        number, self._n_seen = self._n_seen, self._n_seen + 1
        if (tensor.codes if isinstance(tensor, QuantizedTensor) else tensor).nbytes < _SAME_FROM:
            return False

        first, first_name = self._first.setdefault(_digest(tensor), (number, name))
        if first == number:
            return False
        self.same[name] = first
        self.repeated.add(first_name)
        return True


def _digest(tensor: Tensor) -> bytes:
    """Differs for tensors that differ in anything."""
    digest = hashlib.sha256()
    parts: tuple[object, ...] = (tensor,)
    if isinstance(tensor, QuantizedTensor):
        digest.update(f"{tensor.bits} {tensor.channel_axis} {np.dtype(tensor.dtype)}".encode())
        parts = (tensor.codes, tensor.support, tensor.scale, tensor.offset, tensor.channel_scale)

    for part in parts:
        array = None if part is None else np.ascontiguousarray(part)
        digest.update(b"-" if array is None else f"{array.dtype} {array.shape} ".encode())
        if array is not None:
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.digest()
