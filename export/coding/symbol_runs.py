"""Runs of Huffman symbols, one after the other in one bit stream.

A short run continues at the current bit. A run of more than `LANE_SYMBOLS` symbols starts at a byte, with
the byte length of every **lane** (a stretch of that many symbols); lanes start at bytes too, so that several
can be decoded in step or in parallel. See FORMAT.md, "Runs".
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.coding.code_table import CodeTable
from modelpress.export.coding.core import core
from modelpress.export.coding.core_functions import CoreFunctions
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

_IN_STEP_FROM = 32  # lanes; fewer are decoded one after the other
_IN_STEP_MOST = 512  # lanes; more take more memory, and hardly less time
_OUT_OF_BYTES = "bit stream ends before its last symbol"
_BAD_LANE = "a lane does not end with its last symbol"
_BAD_PADDING = "padding bits are not zero"


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
        functions = core()
        if functions is not None:
            self._add_compiled(functions, symbols, table)
            return
        if symbols.size <= LANE_SYMBOLS:
            self._append(*encode_lane(symbols, table.codewords, table.lengths, self.position % 8))
            return

        lanes = [
            encode_lane(symbols[start : start + LANE_SYMBOLS], table.codewords, table.lengths, 0)
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

    def _add_compiled(self, functions: CoreFunctions, symbols: SymbolArray, table: CodeTable) -> None:
        used = self.position % 8
        begun = self.buffer.pop() if used else 0  # a short run goes on in the last byte
        whole = len(self.buffer)
        wide = symbols.dtype.itemsize > 1
        symbols = np.ascontiguousarray(symbols, np.uint16 if wide else np.uint8)
        data, end = functions.write_run(symbols, wide, (0, table.words), used, begun)
        self.buffer += data
        self.position = 8 * whole + end

    def _append(self, data: UInt8Array, n_bits: int) -> None:
        """Bytes whose first bits belong to the last byte so far."""
        if self.position % 8:
            self.buffer[-1] |= int(data[0])
            data = data[1:]
        self.buffer += data.tobytes()
        self.position += n_bits


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

        functions = core()
        if functions is None:
            return self._take_numpy(table, count)

        symbols = np.empty(count, table.symbol_dtype)
        wide = symbols.dtype.itemsize > 1
        try:
            self.position = functions.read_run(
                self.padded, self.end, self.position, table.packed, table.lengths.size, wide, symbols
            )
        except functions.Damaged as error:
            raise DamagedArtifact(str(error)) from error

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
            raise DamagedArtifact(_BAD_PADDING)
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
            raise DamagedArtifact(_OUT_OF_BYTES)

        out = np.empty(count, table.symbol_dtype)
        done, n_full = 0, count // LANE_SYMBOLS
        while table.multi.size and n_full - done >= _IN_STEP_FROM:
            end = min(done + _IN_STEP_MOST, n_full)
            part = out[done * LANE_SYMBOLS : end * LANE_SYMBOLS].reshape(end - done, LANE_SYMBOLS)
            ends = decode_lanes_in_step(self.padded, bounds[done:end], table, part)
            self._check_lane_ends(ends, bounds[done + 1 : end + 1])
            done = end

        for lane in range(done, n_lanes):
            part = out[lane * LANE_SYMBOLS : (lane + 1) * LANE_SYMBOLS]
            part[:], end = decode_stream(stream, table.single, 8 * int(bounds[lane]), part.size)
            self._check_lane_ends(np.array([end]), bounds[lane + 1 : lane + 2])

        self.position = 8 * int(bounds[-1])
        return out

    def _check_lane_ends(self, bits: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> None:
        """Every lane must end with its last symbol, padding zero."""
        if np.any((bits + 7) >> 3 != ends):
            raise DamagedArtifact(_BAD_LANE)
        if np.any(np.where(bits & 7, self.padded[bits >> 3] >> (bits & 7).astype(np.uint8), 0)):
            raise DamagedArtifact(_BAD_PADDING)
