"""Runs of Huffman symbols, one after the other in one bit stream.

A short run continues at the current bit. A run of more than `LANE_SYMBOLS` symbols starts at a byte, with
the byte length of every **lane** (a stretch of that many symbols); lanes start at bytes too, so that several
can be decoded in step or in parallel. See FORMAT.md, "Runs".
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from types import ModuleType

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.coding.code_table import CodeTable
from modelpress.export.coding.symbol_runs_numpy import (
    SHORT_RUN,
    decode_lanes_in_step,
    decode_short_run,
    decode_stream,
    encode_lane,
)
from modelpress.export.coding.varint import unpack_varint
from modelpress.export.errors import DamagedArtifact

LANE_SYMBOLS = 1 << 14
PADDING_BYTES = 1 << 15  # more than LANE_SYMBOLS codewords of 15 bits: no look-up leaves the buffer

SymbolArray = npt.NDArray[np.unsignedinteger]
UInt8Array = npt.NDArray[np.uint8]

_COMPILED_FROM = 1 << 18  # symbols; below, importing the compiler costs more than it saves
_IN_STEP_FROM = 32  # lanes; fewer are decoded one after the other
_numpy_only: list[bool] = []  # not empty inside `numpy_alone`
_NO_MULTI = np.zeros(0, np.uint64)
_FAULTS = {
    -1: "bit stream ends before its last symbol",
    -2: "a lane does not end with its last symbol",
    -3: "padding bits are not zero",
    -4: "a code table has no symbol, but symbols follow",
}


@cache
def compiled_runs() -> ModuleType | None:
    """The compiled functions, or None where the extra `fast` is missing or has no place for its cache."""
    try:
        from modelpress.export.coding import symbol_runs_compiled
    except (ImportError, RuntimeError):
        return None
    return symbol_runs_compiled


def compiled_for(n_symbols: int) -> ModuleType | None:
    """The compiled functions where they pay: for many symbols, or once they are loaded."""
    if _numpy_only:
        return None
    if n_symbols >= _COMPILED_FROM or compiled_runs.cache_info().currsize:
        return compiled_runs()
    return None


@contextmanager
def numpy_alone() -> Iterator[None]:
    """Code with NumPy alone, as where the extra `fast` is not installed: for measuring and testing."""
    _numpy_only.append(True)
    try:
        yield
    finally:
        _numpy_only.pop()


@lru_cache(maxsize=8)
def _kernel_lookups(
    tables: tuple[CodeTable, ...],
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """For `take_kernels`: every `CodeTable.single`; and width, lowest level and the only symbol of each.

    A width of 0 means that symbols take no bits; the only symbol is -1 where there is none at all.
    """
    compiled = compiled_runs()
    assert compiled is not None  # the caller has asked
    stored = [table.lengths.tobytes() for table in tables]
    longest = max(map(len, stored)) + 1
    lengths = np.frombuffer(b"".join(row.ljust(longest, b"\0") for row in stored), np.uint8)
    entries = np.empty((len(tables), 1 << max(max(row, default=0) for row in stored)), np.uint32)
    facts = np.array([[0] * len(tables), [table.lowest for table in tables], [-1] * len(tables)], np.int64)
    compiled.fill_kernel_lookups(lengths.reshape(len(tables), longest), entries, facts)

    return entries, facts


@dataclass
class RunWriter:
    """Collects runs.

    Example:
        >>> table = CodeTable(0, np.array([1, 0, 2, 2], np.uint8))
        >>> writer = RunWriter()
        >>> writer.add(np.array([0, 2, 0], np.uint8), table)
        >>> writer.add(np.array([3], np.uint8), table)
        >>> writer.data().hex()   # 0 10 0, then 11
        '32'
    """

    buffer: bytearray = field(default_factory=bytearray)
    position: int = 0

    def add(self, symbols: SymbolArray, table: CodeTable) -> None:
        """Append a run; symbols count from ``table.lowest``."""
        if table.is_silent or symbols.size == 0:
            return
        if symbols.size <= LANE_SYMBOLS:
            self._append(*_encode(symbols, table, self.position % 8))
            return

        lanes = [
            _encode(symbols[start : start + LANE_SYMBOLS], table, 0)
            for start in range(0, symbols.size, LANE_SYMBOLS)
        ]
        self.add_bytes(np.array([data.size for data, _ in lanes], "<u2").tobytes())
        for data, _ in lanes:
            self.add_bytes(data.tobytes())

    def add_bytes(self, data: bytes) -> None:
        """Append whole bytes, from a byte boundary on."""
        self.buffer += data
        self.position = 8 * len(self.buffer)

    def data(self) -> bytes:
        """Everything added; the last byte is padded with zero bits."""
        return bytes(self.buffer)

    def _append(self, data: UInt8Array, n_bits: int) -> None:
        """Bytes whose first bits belong to the last byte so far."""
        if self.position % 8:
            self.buffer[-1] |= int(data[0])
            data = data[1:]
        self.buffer += data.tobytes()
        self.position += n_bits


def _encode(symbols: SymbolArray, table: CodeTable, shift: int) -> tuple[UInt8Array, int]:
    """The codewords of at most one lane, behind `shift` zero bits, and how many bits they take."""
    compiled = compiled_for(symbols.size)
    if compiled is None:
        return encode_lane(symbols, table.codewords, table.lengths, shift)

    n_bits = int(compiled.count_bits(symbols, table.lengths))
    out = np.empty((shift + n_bits + 7) // 8 + 4, np.uint8)
    compiled.encode_lane(symbols, table.codewords, table.lengths, out, shift)
    return out[: (shift + n_bits + 7) // 8], n_bits


class RunReader:
    """Takes runs from the front of a stream.

    Example:
        >>> table = CodeTable(0, np.array([1, 0, 2, 2], np.uint8))
        >>> reader = RunReader(bytes.fromhex("32"))
        >>> reader.take(table, 3), reader.take(table, 1)
        (array([0, 2, 0], dtype=uint8), array([3], dtype=uint8))
        >>> reader.finish()
    """

    def __init__(self, stream: bytes) -> None:
        self.padded = np.zeros(len(stream) + PADDING_BYTES, np.uint8)
        self.padded[: len(stream)] = np.frombuffer(stream, np.uint8)
        self.end = len(stream)
        self.position = 0

    def take(self, table: CodeTable, count: int) -> SymbolArray:
        """The next `count` symbols, counted from ``table.lowest``.

        Raises:
            DamagedArtifact: The table has no codeword, or the stream does not hold that many symbols.
        """
        if count == 0:
            return np.zeros(0, table.symbol_dtype)
        if table.is_silent:
            if not np.any(table.lengths):
                raise DamagedArtifact(f"code table has no symbol, but {count:,} symbols follow")
            return np.full(count, int(np.flatnonzero(table.lengths)[0]), table.symbol_dtype)
        if count > 8 * self.end - self.position:  # every codeword has a bit: bounds what is allocated
            raise DamagedArtifact(f"bit stream of {self.end:,} bytes cannot hold {count:,} symbols more")

        compiled = compiled_for(count)
        if compiled is None:
            return self._take_numpy(table, count)

        symbols = np.empty(count, table.symbol_dtype)
        multi = table.multi if count >= 4 * LANE_SYMBOLS else _NO_MULTI
        self.advance(
            int(
                compiled.decode_run(
                    self.padded, self.end, self.position, table.single, multi, table.width, symbols
                )
            )
        )

        return symbols

    def take_bytes(self, n_bytes: int) -> bytes:
        """The next whole bytes, from a byte boundary on.

        Raises:
            DamagedArtifact: Fewer are left, or bits before the boundary are set.
        """
        start = self._align()
        if n_bytes > self.end - start:
            raise DamagedArtifact(f"bit stream needs {n_bytes:,} bytes more, {self.end - start:,} are left")
        self.position = 8 * (start + n_bytes)
        return self.padded[start : start + n_bytes].tobytes()

    def take_varint(self) -> int:
        """The next integer, from a byte boundary on.

        Raises:
            DamagedArtifact: It is damaged.
        """
        start = self._align()
        reader = PartReader(self.padded[start : min(start + 10, self.end)].tobytes())
        value = unpack_varint(reader, "header")
        self.position = 8 * (start + reader.position)
        return value

    def take_kernels(
        self,
        masks: npt.NDArray[np.int16],
        kernels: npt.NDArray[np.int16],
        width: int,
        tables: Sequence[CodeTable],
    ) -> None:
        """All runs of `encodings.kernel_mask` in one compiled call; fills `kernels` where `masks` have bits.

        Raises:
            DamagedArtifact: The stream ends early, or a table has no codeword.
        """
        compiled = compiled_runs()
        assert compiled is not None  # the caller has asked
        entries, facts = _kernel_lookups(tuple(tables))
        reached = compiled.decode_kernels(
            self.padded, self.end, self.position, masks, kernels, width, entries, *facts
        )
        self.advance(int(reached))

    def advance(self, position: int) -> None:
        """Move to the bit that a compiled function reached.

        Raises:
            DamagedArtifact: It is an error code.
        """
        if position < 0:
            raise DamagedArtifact(_FAULTS[position])
        self.position = position

    def finish(self) -> None:
        """Refuse bytes that nothing has read, and padding that is not zero.

        Raises:
            DamagedArtifact: As said.
        """
        if self._align() != self.end:
            raise DamagedArtifact(
                f"bit stream is {self.end:,} bytes, its symbols take {(self.position + 7) // 8:,}"
            )

    def _align(self) -> int:
        """The next byte that starts at or after the current bit."""
        used = self.position % 8
        if used and self.padded[self.position // 8] >> used:
            raise DamagedArtifact(_FAULTS[-3])
        return (self.position + 7) // 8

    def _take_numpy(self, table: CodeTable, count: int) -> SymbolArray:
        stream = self.padded[: self.end]
        if count <= SHORT_RUN:
            short, self.position = decode_short_run(stream, table.entries, self.position, count)
            return np.array(short, table.symbol_dtype)
        if count <= LANE_SYMBOLS:
            symbols, self.position = decode_stream(stream, table.single, self.position, count)
            return symbols.astype(table.symbol_dtype)

        n_lanes = -(-count // LANE_SYMBOLS)
        sizes = np.frombuffer(self.take_bytes(2 * n_lanes), "<u2").astype(np.int64)

        bounds = self.position // 8 + np.concatenate([[0], np.cumsum(sizes)])
        if bounds[-1] > self.end:
            raise DamagedArtifact(_FAULTS[-1])

        out = np.empty(count, table.symbol_dtype)
        n_full = count // LANE_SYMBOLS
        if n_full >= _IN_STEP_FROM and table.multi.size:
            done = n_full
            ends = decode_lanes_in_step(
                self.padded,
                bounds[:n_full],
                table,
                out[: n_full * LANE_SYMBOLS].reshape(n_full, LANE_SYMBOLS),
            )
            self._check_lane_ends(ends, bounds[1 : n_full + 1])
        else:
            done = 0

        for lane in range(done, n_lanes):
            part = out[lane * LANE_SYMBOLS : (lane + 1) * LANE_SYMBOLS]
            part[:], end = decode_stream(stream, table.single, 8 * int(bounds[lane]), part.size)
            self._check_lane_ends(np.array([end]), bounds[lane + 1 : lane + 2])

        self.position = 8 * int(bounds[-1])
        return out

    def _check_lane_ends(self, bits: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> None:
        """Every lane must end with its last symbol, padding zero."""
        if np.any((bits + 7) >> 3 != ends):
            raise DamagedArtifact(_FAULTS[-2])
        if np.any(np.where(bits & 7, self.padded[bits >> 3] >> (bits & 7).astype(np.uint8), 0)):
            raise DamagedArtifact(_FAULTS[-3])
