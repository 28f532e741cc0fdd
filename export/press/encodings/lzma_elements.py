"""Encoding 18: the elements as they are, as an LZMA stream; for tensors that repeat themselves, such as indices."""

import numpy as np
import numpy.typing as npt

from modelpress.export.coding import lzma_stream
from modelpress.export.coding.byte_parts import PartReader, PartWriter
from modelpress.export.files.blocks import blocks
from modelpress.export.press.encodings import raw
from modelpress.export.tensor_spec import TensorSpec

# Properties by the bytes of an element: three bits of the byte before as context, or the place in the element
_CANDIDATES = {1: (3, 0), 2: (3 + 45, 9 + 45), 4: (3 + 90, 18 + 90), 8: (3 + 90, 27 + 135)}

_LOOKS_AT = 1 << 14  # bytes in front
_MAY_GAIN = 1.05  # more than what the front promises: a stream learns as it goes
_LEARNT = 0.025  # of the front, at most: what its stream loses to one that knows how frequent which bytes are
_STRETCHES, _STRETCH = 16, 1 << 12  # so many elements tell how often bytes occur
# of a byte: its eight decisions lose 1 / (126 ln 2) of a bit each, for ever following the last 32
_COST_OF_LEARNING = 0.011
_PROBES, _HASH_BITS, _MANY = 512, 16, 0.05


def may_be_shorter(array: npt.NDArray[np.generic], n_bytes: int, split_bytes: int) -> bool:
    """Whether a stream may be shorter than other encodings; the answer takes far less time than a stream.

    No, if the front of the array promises nothing. Nor if the front shows no more than that some bytes are frequent,
    which others code in less, and nothing seems to be repeated far apart.

    Args:
        array: What is encoded.
        n_bytes: Of the best encoding of the elements as they are.
        split_bytes: Of the best encoding of split values; `n_bytes` where there is none.
    """
    flat = array.reshape(-1)
    front = flat[: _LOOKS_AT // array.dtype.itemsize]
    found = encode(front).n_bytes / front.nbytes
    if found > _MAY_GAIN * n_bytes / array.nbytes:
        return False
    if array.nbytes <= _LOOKS_AT:
        return True

    share = min(n_bytes, split_bytes) / array.nbytes
    if found - _LEARNT <= share:
        floor = _share_of_literals(flat)
        if floor < share or found < floor:
            return True
    return _repeats(flat)


def _share_of_literals(flat: npt.NDArray[np.generic]) -> float:
    """What a stream takes of an array in which it finds no repetition, at least, whichever properties it has."""
    itemsize = flat.dtype.itemsize
    step = max(flat.size // _STRETCHES, _STRETCH)
    parts = [flat[start : start + _STRETCH] for start in range(0, flat.size, step)]
    data = np.frombuffer(b"".join(raw.little_endian(part) for part in parts), np.uint8).astype(np.int64)
    contexts = (np.concatenate([data[:1], data[:-1]]) >> 5, np.arange(data.size) % itemsize)
    bits = min(_entropy_bits(data, context) for context in contexts)
    return bits / 8 + _COST_OF_LEARNING


def _entropy_bits(data: npt.NDArray[np.int64], contexts: npt.NDArray[np.int64]) -> float:
    """Entropy of a byte, given its context.

    Source: Miller 1955, "Note on the bias of information estimates", for what a sample leaves out.
    """
    counts = np.bincount(contexts * 256 + data, minlength=8 * 256).reshape(-1, 256)
    totals = counts.sum(axis=1, keepdims=True)
    ratios = np.divide(totals, counts, where=counts > 0, out=np.ones(counts.shape))
    unseen = (np.count_nonzero(counts, axis=1) - 1).clip(0).sum() / (2 * np.log(2))
    return float(((counts * np.log2(ratios)).sum() + unseen) / data.size)


def _repeats(flat: npt.NDArray[np.generic]) -> bool:
    """Whether many of some words of eight bytes, none with an element 0, occur elsewhere too."""
    data = np.ascontiguousarray(flat).view(np.uint8)
    places = np.linspace(0, data.size - 16, _PROBES).astype(np.int64) // 8 * 8
    around = data[places[:, None] + np.arange(16)]

    # words from each element on: one of them lies as the words of the array do, wherever it is repeated
    starts = range(0, 8, flat.dtype.itemsize)
    probes = np.stack(
        [np.ascontiguousarray(around[:, k : k + 8]).view(np.uint64)[:, 0] for k in starts], axis=1
    )
    elements = around.view(f"u{flat.dtype.itemsize}")
    probes = probes[(elements != 0).all(axis=1)]
    if not probes.size:
        return False

    table = np.zeros(1 << _HASH_BITS, np.bool_)
    table[_hashed(probes.reshape(-1))] = True
    found = [probes[:0, 0]]
    for block in blocks(data[: data.size // 8 * 8].view(np.uint64)):
        near = block[table[_hashed(block)]]
        found.append(near[np.isin(near, probes)])

    values, times = np.unique(np.concatenate(found), return_counts=True)
    again = np.isin(probes[:, 0], values[times > 1])  # once it is found where it was taken
    again |= np.isin(probes[:, 1:], values).any(axis=1)
    return bool(np.count_nonzero(again) > _MANY * len(probes))


def _hashed(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    hashed: npt.NDArray[np.uint64] = words * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(64 - _HASH_BITS)
    return hashed


def encode(array: npt.NDArray[np.generic]) -> PartWriter:
    """Properties and stream, the best of two."""
    data = raw.little_endian(array)
    properties, stream = lzma_stream.smallest(data, _CANDIDATES[array.dtype.itemsize])
    return PartWriter().add("header", bytes([properties])).add("payload", stream)


def decode(reader: PartReader, spec: TensorSpec) -> npt.NDArray[np.generic]:
    """Undo `encode`; any floats, infinities and NaN too.

    Raises:
        DamagedArtifact: The stream is damaged or gives another number of bytes; never more than that is produced.
    """
    (properties,) = reader.unpack("B")
    data = lzma_stream.decompress(reader.rest("payload"), spec.n_bytes, properties, what="payload")
    return raw.array_of_any_bits(data, spec)
