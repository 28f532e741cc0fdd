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

from array import array
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpress.export.coding import context_mixing_kernels as kernels
from modelpress.export.coding import linked_contexts
from modelpress.export.coding.core import core
from modelpress.export.coding.core_functions import CoreFunctions
from modelpress.export.errors import DamagedArtifact

MAX_LEVEL = kernels.MAX_LEVEL

LevelArray = npt.NDArray[np.int16]
Progress = Callable[[int], None]
Bounds = tuple[int, int]
_Limits = tuple[int, int, bool]  # lowest and highest level, whether contexts are linked
Learned = tuple[npt.NDArray[np.int64], ...]

_E_TO_1_256TH = 16842880  # exp(1/256) in units of 2**-24
_BYTES_PER_WEIGHT = 24  # 13 modelled decisions of at most 11.6 bits, and 5 bits as they are: 20 bytes
_BLOCK = 1 << 10  # weights between two reports of progress


class ContextModel:
    """What the coder has learned; shared by the tensors of a file, in file order.

    Example:
        >>> levels = np.array([[[0, 1, 0, 0, 3, 0, 0, 0, -2]]], np.int16)   # one 3x3 kernel
        >>> stream = ContextModel().encode(levels, kernel_width=3)
        >>> ContextModel().decode(stream, (1, 1, 9), kernel_width=3, max_level=3)
        array([[[ 0,  1,  0,  0,  3,  0,  0,  0, -2]]], dtype=int16)
    """

    def __init__(self) -> None:
        functions = core()
        self._way: _Compiled | _Plain = _Plain() if functions is None else _Compiled(functions)

    def copy(self) -> "ContextModel":
        """An independent model that has learned the same."""
        twin = ContextModel.__new__(ContextModel)
        twin._way = self._way.copy()
        return twin

    @property
    def state(self) -> Any:
        """Of a compiled model, what the compiled functions take; of a plain one, None."""
        return self._way.state if isinstance(self._way, _Compiled) else None

    def learned(self) -> Learned:
        """Counters (slow, fast, visits), one a row, and weight sets: alike however the model is coded.

        Then counters (probability, visits) and weight sets of linked contexts.
        """
        return self._way.learned()

    def encode(
        self,
        levels: LevelArray,
        *,
        kernel_width: int,
        linked: Bounds | None = None,
        progress: Progress | None = None,
    ) -> bytes:
        """Write the levels of one tensor, and learn from them.

        Args:
            levels: Shape ``(rows, inputs, taps)``; 0 where pruned, magnitudes up to 256.
            kernel_width: Taps in one line of a kernel; 1 where there are no kernels.
            linked: Lowest and highest level, for linked contexts; else contexts are not linked.
            progress: Called with the number of levels written: now and then in plain Python, at the end compiled.

        Raises:
            ValueError: The shape or the kernel width is no such, a magnitude is over 256, or a level is outside.
        """
        _check_shape(levels.shape, kernel_width)
        lowest, highest = linked or (-MAX_LEVEL, MAX_LEVEL)
        lowest, highest = max(lowest, -MAX_LEVEL), min(highest, MAX_LEVEL)
        if levels.size and not lowest <= int(levels.min()) <= int(levels.max()) <= highest:
            raise ValueError(f"levels must lie within {lowest}..{highest}")

        return self._way.encode(
            levels, kernel_width, (lowest, highest, linked is not None), progress or _ignored
        )

    def decode(
        self,
        stream: bytes,
        shape: tuple[int, int, int],
        *,
        kernel_width: int,
        max_level: int = MAX_LEVEL,
        linked: Bounds | None = None,
        progress: Progress | None = None,
    ) -> LevelArray:
        """Undo `encode`, and learn the same.

        Args:
            stream: What `encode` returned.
            shape: ``(rows, inputs, taps)``.
            kernel_width: As for `encode`.
            max_level: Largest magnitude to accept, at most 256; linked contexts go by their bounds.
            linked: As for `encode`.
            progress: As for `encode`.

        Returns:
            The levels, of this shape. Whatever the bytes, no magnitude is over `max_level`, and encoding
            the levels again gives the same bytes.

        Raises:
            ValueError: The shape or the kernel width is no such.
            DamagedArtifact: The stream is not what `encode` would write for any levels of this shape. The
                model is then of no further use.
        """
        _check_shape(shape, kernel_width)
        max_level = min(max_level, MAX_LEVEL)
        limits = (*(linked or (-max_level, max_level)), linked is not None)
        return self._way.decode(stream, shape, kernel_width, limits, progress or _ignored)


class _Compiled:
    """A model in the memory of the compiled functions."""

    def __init__(self, functions: CoreFunctions, state: npt.NDArray[np.uint64] | None = None) -> None:
        self._functions = functions
        if state is None:
            state = np.empty(functions.MIXING_BYTES // 8 + 1, np.uint64)
            functions.start_mixing(state)
        self.state = state

    def copy(self) -> "_Compiled":
        return _Compiled(self._functions, self.state.copy())

    def learned(self) -> Learned:
        packed = self.state[: kernels.N_CONTEXTS].astype(np.int64)
        counters = np.stack([packed >> 32, packed >> 10 & 0x3FFFFF, packed & 1023], axis=1)
        n_weights = kernels.N_WEIGHT_SETS * kernels.MAX_INPUTS
        weights = self.state[kernels.N_CONTEXTS : kernels.N_CONTEXTS + n_weights].view(np.int64)
        rest = self.state[kernels.N_CONTEXTS + n_weights :].view(np.uint8)
        n_bytes = 4 * linked_contexts.N_CONTEXTS
        linked = rest[:n_bytes].view(np.uint32).astype(np.int64)
        n_shorts = kernels.N_WEIGHT_SETS * linked_contexts.N_WEIGHTS
        shorts = rest[n_bytes : n_bytes + 2 * n_shorts].view(np.int16).astype(np.int64)
        return (
            counters,
            weights.reshape(-1, kernels.MAX_INPUTS).copy(),
            np.stack([linked >> 10, linked & 1023], axis=1),
            shorts.reshape(-1, linked_contexts.N_WEIGHTS),
        )

    def encode(self, levels: LevelArray, kernel_width: int, limits: _Limits, progress: Progress) -> bytes:
        levels = np.ascontiguousarray(levels, np.int16)
        rows, inputs, taps = levels.shape
        stream = self._functions.mixed_encode(self.state, levels, rows, inputs, taps, kernel_width, *limits)
        progress(levels.size)
        return stream

    def decode(
        self,
        stream: bytes,
        shape: tuple[int, int, int],
        kernel_width: int,
        limits: _Limits,
        progress: Progress,
    ) -> LevelArray:
        levels = np.empty(shape, np.int16)
        try:
            end = self._functions.mixed_decode(self.state, stream, *shape, kernel_width, *limits, levels)
        except self._functions.Damaged as error:
            raise DamagedArtifact(_beyond(limits)) from error
        if end >= 0:
            raise DamagedArtifact(_ends(stream, end))
        progress(levels.size)
        return levels


class _Plain:
    """A model in lists of integers, for loops in plain Python."""

    def __init__(self) -> None:
        self.counters = _Counters()
        self.linked = linked_contexts.Learned()
        self.weights = [
            [8750 if number < kernels.NODE_BY_NODE else 7000] * kernels.MAX_INPUTS
            for number in range(kernels.N_WEIGHT_SETS)
        ]

    def copy(self) -> "_Plain":
        twin = _Plain()
        twin.counters.update((context, counter[:]) for context, counter in self.counters.items())
        twin.weights = [row[:] for row in self.weights]
        twin.linked = self.linked.copy()
        return twin

    def learned(self) -> Learned:
        counters = np.full((kernels.N_CONTEXTS, 3), [1 << 21, 1 << 21, 0], np.int64)
        for context, counter in self.counters.items():
            counters[context] = counter
        linked = np.full((linked_contexts.N_CONTEXTS, 2), [1 << 21, 0], np.int64)
        for context, pair in self.linked.counters.items():
            linked[context] = pair
        return (
            counters,
            np.array(self.weights, np.int64),
            linked,
            np.array(self.linked.weights, np.int64),
        )

    def encode(self, levels: LevelArray, kernel_width: int, limits: _Limits, progress: Progress) -> bytes:
        run = _Run(self, levels, kernel_width=kernel_width, limits=limits)
        written = bytearray()
        for start, stop in run.blocks():
            buffer = bytearray(_BYTES_PER_WEIGHT * (stop - start) * run.taps + 8)
            run.code(start, stop, buffer, limits=(MAX_LEVEL, len(buffer)), decoding=False)
            n_bytes, run.registers[kernels.POSITION] = run.registers[kernels.POSITION], 0
            written += buffer[:n_bytes]
            progress(stop * run.taps)

        return bytes(written + _last_bytes(run.low, run.high))

    def decode(
        self,
        stream: bytes,
        shape: tuple[int, int, int],
        kernel_width: int,
        limits: _Limits,
        progress: Progress,
    ) -> LevelArray:
        run = _Run(self, np.zeros(shape, np.int16), kernel_width=kernel_width, limits=limits)
        run.registers[kernels.CODE] = int.from_bytes(stream[:4].ljust(4, b"\0"), "big")
        run.registers[kernels.POSITION] = 4
        buffer, most = bytearray(stream), (max(-limits[0], limits[1]), len(stream) + 4)

        for start, stop in run.blocks():
            if run.code(start, stop, buffer, limits=most, decoding=True) < stop - start:
                raise DamagedArtifact(_beyond(limits))
            progress(stop * run.taps)

        position = run.registers[kernels.POSITION] - 4  # the decoder holds four bytes from here on
        if stream[position:] != _last_bytes(run.low, run.high):
            raise DamagedArtifact(_ends(stream, position))

        return np.frombuffer(run.levels, np.int16).reshape(shape)


class _Counters(dict[int, list[int]]):
    """Counters (slow, fast, visits), made when a context first occurs: most never do."""

    def __missing__(self, context: int) -> list[int]:
        counter = self[context] = [1 << 21, 1 << 21, 0]
        return counter


def _ignored(_n_levels: int) -> None:
    """Nobody asks for progress."""


def _beyond(limits: _Limits) -> str:
    return f"context-mixing stream holds a magnitude over {max(-limits[0], limits[1])}, or ends early"


def _ends(stream: bytes, position: int) -> str:
    return f"context-mixing stream of {len(stream):,} bytes ends at byte {position:,}"


class _Run:
    """One tensor on its way through the plain coder."""

    def __init__(self, model: _Plain, levels: LevelArray, *, kernel_width: int, limits: _Limits) -> None:
        rows, self.inputs, self.taps = levels.shape
        self.n_kernels = rows * self.inputs if self.taps else 0
        self.layout = (self.taps, kernel_width, self.inputs * self.taps)
        n_slots = min(max(rows, 1), kernels.MAX_SLOTS)
        # typed arrays where there is one number for each weight of a row: lists take many times as much
        self.levels = array("h", levels.astype(np.int16).tobytes())
        self.registers = [0] * kernels.N_REGISTERS
        self.registers[kernels.HIGH] = 0xFFFFFFFF
        self._learned = (model.counters, model.weights, _tables(), self.registers)
        self._links: linked_contexts.Links | None = None
        model.linked.begin()
        if limits[2]:
            self._links = linked_contexts.Links(model.linked, limits[:2], self.inputs, self.taps)
        self.work = (
            _zeros("i", self.inputs),  # magnitudes by column
            _zeros("i", self.inputs * self.taps),  # magnitudes by column and tap
            [0] * n_slots,  # correlations with previous rows
            _zeros("h", self.inputs * self.taps * n_slots),  # their residuals
            [0] * 4,  # sums
            _zeros("i", self.taps),  # predictions
            [0] * n_slots,  # factors
        )

    @property
    def low(self) -> int:
        return self.registers[kernels.LOW]

    @property
    def high(self) -> int:
        return self.registers[kernels.HIGH]

    def blocks(self) -> list[tuple[int, int]]:
        """First and last kernel, exclusive, of blocks of about equally many weights."""
        step = max(_BLOCK // max(self.taps, 1), 1)
        return [(k, min(k + step, self.n_kernels)) for k in range(0, self.n_kernels, step)]

    def code(
        self, start: int, stop: int, buffer: bytearray, *, limits: tuple[int, int], decoding: bool
    ) -> int:
        """Code the kernels from `start` to `stop`; returns how many were coded."""
        self.registers[kernels.DECODING] = int(decoding)
        coder = (*self._learned, buffer)
        done = kernels.code_kernels(  # type: ignore[no-untyped-call]
            self.levels, (start, stop), self.inputs, self.layout, limits, self.work, coder, self._links
        )
        return int(done)


def _zeros(kind: str, n: int) -> "array[int]":
    return array(kind, bytes(array(kind).itemsize * n))


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


@cache
def _tables() -> list[int]:
    """Tables ``stretch, squash, rates, log2``; FORMAT.md, "Context mixing", Tables."""
    odds = [1 << 24]
    for _ in range(2047):
        odds.append(odds[-1] * _E_TO_1_256TH >> 24)

    upper = [(ratio << 16) // (ratio + (1 << 24)) for ratio in odds]
    squash = [65536 - p for p in reversed(upper[1:])] + upper
    least = np.searchsorted(np.array(squash), 16 * np.arange(4096) + 8)
    stretch = (np.minimum(least, 4094) - 2047).tolist()
    rates = [655360 // (10 * visits + 16) for visits in range(kernels.SLOW_LIMIT + 1)]
    log2 = [_log2(value + 8) for value in range(kernels.MAX_LOG + 1)]

    return [*stretch, *squash, *rates, *log2]


def _log2(y: int) -> int:
    """``16 * log2(y / 8)`` of an integer from 8 on, linear between powers of two."""
    exponent = y.bit_length() - 1
    return 16 * (exponent - 4) + (16 * y >> exponent)
