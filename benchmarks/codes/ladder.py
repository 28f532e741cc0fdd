"""The size ladder: the same integer weights in every form, from float32 down to the smallest.

Every rung is the size of bytes that have been decoded again and compared; only the bounds are computed.
"""

import lzma
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from modelpress.benchmarks.codes.optional import optional_module
from modelpress.export.coding.byte_parts import PartReader, PartWriter
from modelpress.export.coding.code_table import Counts
from modelpress.export.coding.core import core
from modelpress.export.coding.csr import Csr, csr_from_dense, csr_to_dense
from modelpress.export.errors import ModelError
from modelpress.export.press.encodings import (
    HUFFMAN_IDS,
    PACKED,
    encoding_by_id,
    huffman_blob,
    mixed_contexts,
    packed,
)
from modelpress.export.press.encodings import LINKED as LINKED_CONTEXTS
from modelpress.export.press.encodings import MIXED as MIXED_CONTEXTS
from modelpress.export.press.encodings.bitmap import BitmapCoder
from modelpress.export.press.encodings.dense import DenseCoder
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.encodings.gaps import GapCoder
from modelpress.export.press.encodings.grid import grid_of
from modelpress.export.press.encodings.huffman_blob import NO_SHARED
from modelpress.export.press.encodings.kernels.kernel_mask import KernelMaskCoder
from modelpress.export.press.encodings.kernels.sign_rows import SignRowCoder
from modelpress.export.press.encodings.levels import Levels, levels_of, source_of
from modelpress.export.press.encodings.slab_coder import SlabCoder, count_levels
from modelpress.export.press.reading import TensorUsage
from modelpress.export.quantized import QuantizedTensor

_CODERS: Mapping[str, type[SlabCoder]] = MappingProxyType(
    {
        "Huffman": DenseCoder,
        "CSR + Huffman": GapCoder,
        "bitmap + Huffman": BitmapCoder,
        "kernel masks + Huffman": KernelMaskCoder,
        "sign rows + Huffman": SignRowCoder,
    }
)
MIXED = "mixed contexts"
LINKED = "linked contexts"
BOUNDS = ("entropy of levels", "entropy of gaps and levels")


@dataclass(frozen=True)
class TensorLadder:
    """One tensor.

    Attributes:
        rungs: Bytes by form; encodings count their grid, tables and headers, the others the codes alone.
        bounds: Zero-order entropies in bytes: what no code with these symbols gets below without tables.
    """

    name: str
    n_weights: int
    rungs: dict[str, int] = field(default_factory=dict)
    bounds: dict[str, int] = field(default_factory=dict)


def size_ladder(
    tensors: Iterable[tuple[str, QuantizedTensor]],
    *,
    mixed: bool = True,
    on_tensor: Callable[[str], None] | None = None,
) -> list[TensorLadder]:
    """Write every tensor in every form, and read it back.

    Args:
        tensors: In file order: mixed contexts learn from one to the next.
        mixed: Whether to include them; where nothing is compiled they take long.
        on_tensor: Called with the name of every tensor done.

    Raises:
        ModelError: A form does not decode to the same tensor.
    """
    writer, reader = FileState(), FileState()
    ladders = []
    for name, tensor in tensors:
        rungs = {"float32": 4 * tensor.codes.size}
        rungs |= _plain_rungs(name, tensor) | _encodings(name, tensor)
        # writer and reader learn alike from tensor to tensor, as in a file
        if mixed:
            if mixed_contexts.holds(tensor.spec):
                blob = mixed_contexts.encode(tensor, writer)
                rungs[MIXED] = _checked(name, tensor, MIXED_CONTEXTS, blob, reader)
                blob = mixed_contexts.encode(tensor, writer, linked=True)
                rungs[LINKED] = _checked(name, tensor, LINKED_CONTEXTS, blob, reader)
            else:
                # what mixed contexts cannot hold takes its next best form
                rungs[MIXED] = rungs[LINKED] = min(rungs[form] for form in ("bit-packed", *_CODERS))

        rungs |= _general_compressors(name, tensor)
        ladders.append(TensorLadder(name, tensor.codes.size, rungs, entropies(tensor)))
        if on_tensor is not None:
            on_tensor(name)

    return ladders


def total_ladder(ladders: Iterable[TensorLadder]) -> TensorLadder:
    """All tensors together."""
    total = TensorLadder("all", 0)
    for ladder in ladders:
        total = TensorLadder("all", total.n_weights + ladder.n_weights, total.rungs, total.bounds)
        for sums, parts in ((total.rungs, ladder.rungs), (total.bounds, ladder.bounds)):
            for key, size in parts.items():
                sums[key] = sums.get(key, 0) + size
    return total


def stored_ladder(stored: Sequence[TensorUsage]) -> dict[str, int]:
    """All quantized tensors of an artifact in every form, and as the artifact stores them; empty without any."""
    tensors = [(t.record.name, t.tensor) for t in stored if isinstance(t.tensor, QuantizedTensor)]
    if not tensors:
        return {}

    total = total_ladder(size_ladder(tensors, mixed=core() is not None))
    as_stored = sum(t.record.n_bytes for t in stored if isinstance(t.tensor, QuantizedTensor))
    return {**total.rungs, "as stored": as_stored}


def _all_levels(tensor: QuantizedTensor) -> Levels:
    return levels_of(tensor, grid_of(tensor), 0, tensor.codes.size)


def _narrow(levels: Levels) -> npt.NDArray[np.integer]:
    """One byte per level where they fit."""
    small = levels.astype(np.int8)
    return small if np.array_equal(small, levels) else levels


def _plain_rungs(name: str, tensor: QuantizedTensor) -> dict[str, int]:
    """Codes as they are, and compressed sparse rows as SciPy stores them, in the narrowest types."""
    codes = _narrow(_all_levels(tensor))
    # a row of the matrix is an output channel
    rows = max(tensor.shape[0], 1)
    matrix = codes.reshape(rows, -1)
    csr = csr_from_dense(matrix, matrix != 0)
    columns = csr.indices.astype(np.min_scalar_type(max(matrix.shape[1] - 1, 0)))
    pointers = csr.indptr.astype(np.min_scalar_type(csr.data.size))
    restored = csr_to_dense(Csr(csr.data, columns.astype(np.int64), pointers.astype(np.int64), csr.shape))[0]
    _check(name, "CSR", np.array_equal(restored, matrix))

    return {"int codes": codes.nbytes, "CSR": csr.data.nbytes + columns.nbytes + pointers.nbytes}


def _encodings(name: str, tensor: QuantizedTensor) -> dict[str, int]:
    """Bit-packed and every Huffman encoding, with tables of the tensor's own."""
    state = FileState()
    sizes = {"bit-packed": _checked(name, tensor, PACKED, packed.encode(tensor), state)}
    for rung, kind in _CODERS.items():
        # without tables shared with other tensors: a rung is a tensor on its own
        plans = huffman_blob.survey(tensor, kind.candidates(tensor.spec, source_of(tensor).bounds))
        if not plans:
            # what a coder cannot hold takes its next best form
            sizes[rung] = min(sizes.values())
            continue
        plan = min(plans, key=lambda p: p.n_bytes(NO_SHARED))
        blob = huffman_blob.write(tensor, plan, NO_SHARED)
        sizes[rung] = _checked(name, tensor, HUFFMAN_IDS[kind], blob, state)

    return sizes


def _checked(name: str, tensor: QuantizedTensor, number: int, writer: PartWriter, state: FileState) -> int:
    """The size of a blob that decodes to the tensor."""
    data = writer.data()
    encoding = encoding_by_id(number)
    restored = encoding.decode(PartReader(data), tensor.spec, state)
    _check(name, encoding.name, tensor.equals(restored))
    return len(data)


def _general_compressors(name: str, tensor: QuantizedTensor) -> dict[str, int]:
    """Other people's compressors at their strongest, on the codes in one byte each; those installed."""
    data = _narrow(_all_levels(tensor)).tobytes()
    sizes = {}
    packed_xz = lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
    _check(name, "xz", lzma.decompress(packed_xz) == data)

    zstandard, brotli = optional_module("zstandard"), optional_module("brotli")
    if zstandard is not None:
        stream = zstandard.ZstdCompressor(level=19).compress(data)
        _check(
            name, "zstd", zstandard.ZstdDecompressor().decompress(stream, max_output_size=len(data)) == data
        )
        sizes["zstd -19"] = len(stream)

    sizes["xz -9e"] = len(packed_xz)
    if brotli is not None:
        stream = brotli.compress(data, quality=11)
        _check(name, "brotli", brotli.decompress(stream) == data)
        sizes["brotli -q 11"] = len(stream)

    return sizes


def entropies(tensor: QuantizedTensor) -> dict[str, int]:
    """Zero-order entropies in bytes: of the levels; of the gaps between nonzeros, and the nonzero levels."""
    levels = _all_levels(tensor)
    # prepend -1: the gap before the first nonzero counts from the start
    positions = np.flatnonzero(levels)
    gaps = np.unique(np.diff(positions, prepend=-1), return_counts=True)[1]
    nonzero = count_levels(levels[positions]).entropy_bits()
    bits = (count_levels(levels).entropy_bits(), Counts(0, gaps).entropy_bits() + nonzero)
    return {bound: int(np.ceil(b / 8)) for bound, b in zip(BOUNDS, bits, strict=True)}


def _check(name: str, form: str, is_same: bool) -> None:
    if not is_same:
        raise ModelError(f"{name}: {form} does not decode to the same tensor")
