"""How fast weights are coded, side by side with what else could be used, in one run.

All times are of one thread. Contestants take turns; the best round counts (nothing but the code itself takes part).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from modelpress.benchmarks.codes.optional import optional_module
from modelpress.export.coding.code_table import CodeTable, Counts
from modelpress.export.coding.core import core, numpy_alone
from modelpress.export.coding.symbol_runs import RunReader, RunWriter
from modelpress.export.errors import InputError, ModelError
from modelpress.export.press.encodings import LINKED, decode_blob, mixed_contexts
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.encodings.grid import grid_of
from modelpress.export.press.encodings.levels import levels_of
from modelpress.export.press.encodings.slab_coder import count_levels
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor, tensors_equal

_SEED = 0
_T = TypeVar("_T")
Symbols = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class StreamSpeed:
    """One way to code a stream of one-byte symbols.

    Attributes:
        size_bytes: Of the coded stream.
        encode_mb_per_s: Megabytes (10**6 symbols) per second, best of all rounds.
        decode_mb_per_s: The same, decoding.
    """

    name: str
    size_bytes: int
    encode_mb_per_s: float
    decode_mb_per_s: float


def drawn_symbols(model: QuantizedModel, n_symbols: int) -> Symbols:
    """Symbols drawn independently with the frequencies of a model's levels, counted from the lowest.

    Raises:
        InputError: Nothing is quantized, or there are more than 256 levels.
    """
    total = Counts.none()
    for tensor in model.tensors.values():
        if isinstance(tensor, QuantizedTensor) and tensor.codes.size:
            total += count_levels(levels_of(tensor, grid_of(tensor), 0, tensor.codes.size))

    counts = total.trimmed().counts
    if not 0 < counts.size <= 256:
        raise InputError(f"{counts.size} different levels; expected quantized tensors with at most 256")

    # drawn anew instead of repeated: zstandard would find the repetition
    chosen = np.random.default_rng(_SEED).choice(counts.size, size=n_symbols, p=counts / counts.sum())
    return chosen.astype(np.uint8)


def stream_speeds(
    symbols: Symbols, *, rounds: int, on_round: Callable[[str], None] | None = None
) -> list[StreamSpeed]:
    """Huffman runs, compiled and with NumPy alone, and zstandard at level 3, on the same symbols.

    Raises:
        ModelError: Something does not come back as it was.
    """
    table = CodeTable.for_counts(Counts(0, np.bincount(symbols)))
    encode, decode = _huffman(symbols, table)
    contestants: dict[str, tuple[Callable[[], bytes], Callable[[bytes], Any]]] = {}
    if core() is not None:
        contestants["Huffman, compiled"] = encode, decode

    contestants["Huffman, NumPy"] = _with_numpy_alone(encode), _with_numpy_alone(decode)
    zstandard = optional_module("zstandard")
    if zstandard is not None:
        data = symbols.tobytes()
        contestants["zstandard, level 3"] = (
            lambda: zstandard.ZstdCompressor(level=3).compress(data),
            lambda stream: zstandard.ZstdDecompressor().decompress(stream, max_output_size=len(data)),
        )

    # contestants take turns, so that a slow moment of the machine meets all of them
    best: dict[str, list[float]] = {name: [np.inf, np.inf] for name in contestants}
    sizes: dict[str, int] = {}
    for _ in range(rounds):
        for name, (write, read) in contestants.items():
            seconds, stream = _timed(write)
            best[name][0], sizes[name] = min(best[name][0], seconds), len(stream)
            seconds, restored = _timed(partial(read, stream))
            best[name][1] = min(best[name][1], seconds)
            if not np.array_equal(np.frombuffer(restored, np.uint8), symbols):
                raise ModelError(f"{name}: the stream does not decode to its symbols")

            if on_round is not None:
                on_round(name)

    megabytes = symbols.size / 1e6
    return [
        StreamSpeed(name, sizes[name], megabytes / encoding, megabytes / decoding)
        for name, (encoding, decoding) in best.items()
    ]


def mixed_context_speed(model: QuantizedModel, *, rounds: int) -> tuple[float, float]:
    """Millions of weights per second, encoding and decoding the quantized tensors of a model; the best round.

    Raises:
        ModelError: A tensor does not come back as it was.
    """
    tensors = [t for t in model.tensors.values() if isinstance(t, QuantizedTensor)]
    n_weights = sum(t.codes.size for t in tensors)

    best = [np.inf, np.inf]
    for _ in range(rounds):
        seconds, blobs = _timed(partial(_encode_mixed, tensors))
        best[0] = min(best[0], seconds)

        seconds, restored = _timed(partial(_decode_mixed, tensors, blobs))
        best[1] = min(best[1], seconds)
        if not all(map(tensors_equal, tensors, restored)):
            raise ModelError("mixed contexts do not decode to the tensors")

    return n_weights / best[0] / 1e6, n_weights / best[1] / 1e6


def _encode_mixed(tensors: list[QuantizedTensor]) -> list[bytes]:
    state = FileState()
    return [mixed_contexts.encode(tensor, state, linked=True).data() for tensor in tensors]


def _decode_mixed(tensors: list[QuantizedTensor], blobs: list[bytes]) -> list[Tensor]:
    state = FileState()
    return [
        decode_blob(LINKED, blob, tensor.spec, state)[0] for tensor, blob in zip(tensors, blobs, strict=True)
    ]


def _huffman(symbols: Symbols, table: CodeTable) -> tuple[Callable[[], bytes], Callable[[bytes], Symbols]]:
    shifted = symbols - np.uint8(table.lowest)

    def encode() -> bytes:
        runs = RunWriter()
        runs.add(shifted, table)
        return runs.data()

    def decode(stream: bytes) -> Symbols:
        runs = RunReader(stream)
        decoded = runs.take(table, symbols.size)
        runs.finish()
        return np.asarray(decoded, np.uint8) + np.uint8(table.lowest)

    return encode, decode


def _with_numpy_alone(function: Callable[..., _T]) -> Callable[..., _T]:
    def run(*arguments: Any) -> _T:
        with numpy_alone():
            return function(*arguments)

    return run


def _timed(function: Callable[[], _T]) -> tuple[float, _T]:
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result
