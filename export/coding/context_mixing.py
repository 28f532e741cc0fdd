"""The strongest lossless coder for quantized, pruned convolution weights: context mixing.

A level is coded as a few binary decisions: is it zero, its sign, its magnitude bit by bit. Adaptive
counters, each under another context, estimate the probability of every decision; a small network with one
weight per counter, trained as it goes, mixes the estimates in the logistic domain; an arithmetic coder turns
the decision and its probability into bytes. Encoder and decoder learn alike, so no table is stored.

The contexts know what convolution weights have in common: neighbouring taps of a kernel resemble one
another, rows (output channels) resemble combinations of previous rows, and output channels, input channels
and taps have energies of their own.

FORMAT.md, "Context mixing", specifies every integer.

Source: Mahoney 2005, "Adaptive weighing of context models for lossless data compression" (PAQ, lpaq), for
counters and mixing; Witten, Neal and Cleary 1987, "Arithmetic coding for data compression".
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpress.export.coding import context_mixing_kernels as kernels
from modelpress.export.errors import DamagedArtifact

MAX_LEVEL = 256

LevelArray = npt.NDArray[np.int16]
Progress = Callable[[int], None]

_E_TO_1_256TH = 16842880  # exp(1/256) in units of 2**-24
_BYTES_PER_WEIGHT = 24  # 13 modelled decisions of at most 11.6 bits, and 5 bits as they are: 20 bytes
_COMPILED_FROM = 1 << 13  # weights; below, loading the compiled loops takes longer than they save
_BLOCK, _SLOW_BLOCK = 1 << 14, 1 << 10  # weights between two reports of progress


class ContextModel:
    """What the coder has learned; shared by the tensors of a file, in file order.

    Example:
        >>> levels = np.array([[[0, 1, 0, 0, 3, 0, 0, 0, -2]]], np.int16)   # one 3x3 kernel
        >>> stream = ContextModel().encode(levels, kernel_width=3)
        >>> ContextModel().decode(stream, (1, 1, 9), kernel_width=3, max_level=3)
        array([[[ 0,  1,  0,  0,  3,  0,  0,  0, -2]]], dtype=int16)
    """

    def __init__(self) -> None:
        self._counters: Any = np.zeros((kernels.N_CONTEXTS, 3), np.int32)  # slow, fast, visits
        self._counters[:, :2] = 1 << 21
        self._weights: Any = np.zeros((kernels.N_WEIGHT_SETS, kernels.MAX_INPUTS), np.int64)
        self._weights[: kernels.NODE_BY_NODE] = 8750
        self._weights[kernels.NODE_BY_NODE :] = 7000

    def copy(self) -> "ContextModel":
        """An independent model that has learned the same."""
        twin = ContextModel.__new__(ContextModel)
        twin._counters, twin._weights = (
            part.copy() if isinstance(part, np.ndarray) else [row[:] for row in part]
            for part in (self._counters, self._weights)
        )
        return twin

    def _learned(self, *, compiled: bool) -> tuple[Any, Any]:
        """Counters and weights as arrays or, for loops in plain Python, as lists of lists."""
        if compiled and isinstance(self._counters, list):
            self._counters = np.array(self._counters, np.int32)
            self._weights = np.array(self._weights, np.int64)
        elif not compiled and isinstance(self._counters, np.ndarray):
            self._counters, self._weights = self._counters.tolist(), self._weights.tolist()
        return self._counters, self._weights

    def encode(self, levels: LevelArray, *, kernel_width: int, progress: Progress | None = None) -> bytes:
        """Write the levels of one tensor, and learn from them.

        Args:
            levels: Shape ``(rows, inputs, taps)``; 0 where pruned, magnitudes up to 256.
            kernel_width: Taps in one line of a kernel; 1 where there are no kernels.
            progress: Called now and then with the number of levels written.

        Raises:
            ValueError: The shape or the kernel width is no such, or a magnitude is over 256.
        """
        _check_shape(levels.shape, kernel_width)
        if levels.size and not -MAX_LEVEL <= int(levels.min()) <= int(levels.max()) <= MAX_LEVEL:
            raise ValueError(f"levels must lie within -{MAX_LEVEL}..{MAX_LEVEL}")

        run = _Run(self, levels, kernel_width=kernel_width)
        written = bytearray()
        for start, stop in run.blocks():
            buffer = run.buffer(bytes(_BYTES_PER_WEIGHT * (stop - start) * run.taps + 8))
            run.code(start, stop, buffer, limits=(MAX_LEVEL, len(buffer)), decoding=False)
            n_bytes, run.registers[kernels.POSITION] = int(run.registers[kernels.POSITION]), 0
            written += bytes(buffer[:n_bytes])
            if progress:
                progress(stop * run.taps)

        return bytes(written + _last_bytes(run.low, run.high))

    def decode(
        self,
        stream: bytes,
        shape: tuple[int, int, int],
        *,
        kernel_width: int,
        max_level: int,
        progress: Progress | None = None,
    ) -> LevelArray:
        """Undo `encode`, and learn the same.

        Args:
            stream: What `encode` returned.
            shape: ``(rows, inputs, taps)``.
            kernel_width: As for `encode`.
            max_level: Largest magnitude to accept, at most 256.
            progress: Called now and then with the number of levels read.

        Returns:
            The levels, of this shape. Whatever the bytes, no magnitude is over `max_level`, and encoding
            the levels again gives the same bytes.

        Raises:
            ValueError: The shape or the kernel width is no such.
            DamagedArtifact: The stream is not what `encode` would write for any levels of this shape. The
                model is then of no further use.
        """
        _check_shape(shape, kernel_width)
        run = _Run(self, np.zeros(shape, np.int16), kernel_width=kernel_width)
        buffer = run.buffer(stream)
        run.registers[kernels.CODE] = int.from_bytes(stream[:4].ljust(4, b"\0"), "big")
        run.registers[kernels.POSITION] = 4
        limits = (min(max_level, MAX_LEVEL), len(stream) + 4)

        for start, stop in run.blocks():
            if run.code(start, stop, buffer, limits=limits, decoding=True) < stop - start:
                raise DamagedArtifact(
                    f"context-mixing stream holds a magnitude over {limits[0]}, or ends early"
                )
            if progress:
                progress(stop * run.taps)

        position = int(run.registers[kernels.POSITION]) - 4  # the decoder holds four bytes from here on
        if stream[position:] != _last_bytes(run.low, run.high):
            raise DamagedArtifact(f"context-mixing stream of {len(stream):,} bytes ends at byte {position:,}")

        return np.array(run.levels, np.int16).reshape(shape)


class _Run:
    """One tensor on its way through the coder: arrays where compiled, lists where not."""

    def __init__(self, model: ContextModel, levels: LevelArray, *, kernel_width: int) -> None:
        rows, self.inputs, self.taps = levels.shape
        self.n_kernels = rows * self.inputs if self.taps else 0
        self.layout = (self.taps, kernel_width, self.inputs * self.taps)
        self.code_kernels, self.compiled = _code_kernels(levels.size)
        n_slots = min(max(rows, 1), kernels.MAX_SLOTS)
        self.levels = self._sequence(np.array(levels, np.int16).reshape(-1))
        self.counters, self.weights = model._learned(compiled=self.compiled)
        self.tables = _tables() if self.compiled else _table_list()
        self.registers = self._zeros(kernels.N_REGISTERS)
        self.registers[kernels.HIGH] = 0xFFFFFFFF
        self.work = (
            self._zeros(self.inputs),  # magnitudes by column
            self._zeros(self.inputs * self.taps),  # magnitudes by column and tap
            self._zeros(n_slots),  # correlations with previous rows
            self._sequence(np.zeros((self.inputs * self.taps, n_slots), np.int16)),  # their residuals
            self._zeros(4),  # sums
            self._zeros(self.taps),  # predictions
            self._zeros(n_slots),  # factors
        )

    @property
    def low(self) -> int:
        return int(self.registers[kernels.LOW])

    @property
    def high(self) -> int:
        return int(self.registers[kernels.HIGH])

    def blocks(self) -> list[tuple[int, int]]:
        """First and last kernel, exclusive, of blocks of about equally many weights."""
        step = max((_BLOCK if self.compiled else _SLOW_BLOCK) // max(self.taps, 1), 1)
        return [(k, min(k + step, self.n_kernels)) for k in range(0, self.n_kernels, step)]

    def buffer(self, data: bytes) -> Any:
        """A writable copy of the bytes."""
        return np.frombuffer(bytearray(data), np.uint8) if self.compiled else bytearray(data)

    def code(self, start: int, stop: int, buffer: Any, *, limits: tuple[int, int], decoding: bool) -> int:
        """Code the kernels from `start` to `stop`; returns how many were coded."""
        self.registers[kernels.DECODING] = int(decoding)
        coder = (self.counters, self.weights, self.tables, self.registers, buffer)
        done = self.code_kernels(
            self.levels, (start, stop), self.inputs, self.layout, limits, self.work, coder
        )
        return int(done)

    def _sequence(self, array: npt.NDArray[Any]) -> Any:
        return array if self.compiled else array.tolist()

    def _zeros(self, n: int) -> Any:
        return self._sequence(np.zeros(n, np.int64))


def _check_shape(shape: Sequence[int], kernel_width: int) -> None:
    if len(shape) != 3 or min(shape) < 0 or kernel_width < 1:
        raise ValueError(
            f"levels need shape (rows, inputs, taps) and a kernel width, got {shape}, {kernel_width}"
        )


def _last_bytes(low: int, high: int) -> bytes:
    """The shortest bytes that, with zeros after them, name a number in ``low .. high`` of 32 bits."""
    for n_bytes in range(4):
        step = 1 << (32 - 8 * n_bytes)
        value = -(-low // step)
        if value * step <= high:
            return value.to_bytes(n_bytes, "big")
    return low.to_bytes(4, "big")


def _code_kernels(n_levels: int) -> tuple[Callable[..., Any], bool]:
    """The loops, and whether they are compiled: for many levels, or once they are loaded."""
    if n_levels >= _COMPILED_FROM or _compiled.cache_info().currsize:
        compiled = _compiled()
        if compiled is not None:
            return compiled, True
    return kernels.code_kernels, False


@cache
def _compiled() -> Callable[..., Any] | None:
    """None where the extra `fast` is missing, or has no place for its cache."""
    try:
        return kernels.compiled_code_kernels()
    except (ImportError, RuntimeError):
        return None


@cache
def _tables() -> npt.NDArray[np.int32]:
    """Tables ``stretch, squash, rates, log2``; FORMAT.md, "Context mixing", Tables."""
    odds = [1 << 24]
    for _ in range(2047):
        odds.append(odds[-1] * _E_TO_1_256TH >> 24)

    upper = [(ratio << 16) // (ratio + (1 << 24)) for ratio in odds]
    squash = [65536 - p for p in reversed(upper[1:])] + upper
    stretch = [min(int(np.searchsorted(squash, 16 * i + 8)), 4094) - 2047 for i in range(4096)]
    rates = [655360 // (10 * visits + 16) for visits in range(kernels.SLOW_LIMIT + 1)]
    log2 = [_log2(value + 8) for value in range(kernels.MAX_LOG + 1)]

    return np.array(stretch + squash + rates + log2, np.int32)


@cache
def _table_list() -> list[int]:
    return list(map(int, _tables()))


def _log2(y: int) -> int:
    """``16 * log2(y / 8)`` of an integer from 8 on, linear between powers of two."""
    exponent = y.bit_length() - 1
    return 16 * (exponent - 4) + (16 * y >> exponent)
