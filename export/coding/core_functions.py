"""What the compiled module `_core` offers, for readers and type checkers; `_core.c` does it, `press.h` tells how.

Arrays are contiguous buffers: ``int16`` levels, ``int64`` counts, ``float32`` parameters. A refused stream raises
`Damaged`, which callers turn into `DamagedArtifact`; arrays of wrong sizes raise ValueError.
"""

from typing import Any, Protocol

Buffer = Any  # what the buffer protocol takes: bytes, bytearray, arrays
Parts = tuple[int, int, int, int]  # bytes of header, scales, tables, payload
Words = tuple[int, Buffer]  # lowest symbol, `table_words`
Quantized = tuple[
    int, int, int, bytearray, bytearray | None, bytearray | None, bytearray, bytearray | None, Parts
]


class CoreFunctions(Protocol):
    """The functions of `_core`."""

    Damaged: type[Exception]
    MIXING_BYTES: int

    def read_file(
        self, data: Buffer, max_decoded: int, /
    ) -> tuple[bytes, list[tuple[str, int, tuple[int, ...], bytearray]]] | None:
        """Graph; name, ONNX type, shape and elements in this machine's byte order of every tensor; None: refused."""

    def open_shared(self, chunk: Buffer, /) -> object:
        """What the chunk TABL holds, opened."""

    def start_mixing(self, state: Buffer, /) -> None:
        """Fill `MIXING_BYTES` with the state of mixed contexts as a file begins."""

    def decode_codes(
        self,
        encoding: int,
        onnx_type: int,
        shape: tuple[int, ...],
        blob: Buffer,
        shared: object,
        mixing: Buffer | None,
        /,
    ) -> Quantized:
        """Bits, channel axis, flags, scale, offset, channel scale, codes, support and parts of a tensor."""
        ...

    def decode_values(
        self,
        encoding: int,
        onnx_type: int,
        shape: tuple[int, ...],
        blob: Buffer,
        shared: object,
        mixing: Buffer | None,
        values: Buffer,
        /,
    ) -> Parts:
        """Fill `values`."""
        ...

    def dequantize(
        self,
        onnx_type: int,
        flags: int,
        channels: int,
        inner: int,
        codes: Buffer,
        support: Buffer | None,
        scale: Buffer,
        offset: Buffer | None,
        channel_scale: Buffer | None,
        values: Buffer,
        /,
    ) -> None:
        """Fill `values`; parameters are little-endian."""

    def csr_to_dense(
        self,
        data: Buffer,
        indices: Buffer,
        indptr: Buffer,
        rows: int,
        columns: int,
        codes: Buffer,
        support: Buffer,
        /,
    ) -> None:
        """Fill `codes` and `support`."""

    def read_run(
        self,
        stream: Buffer,
        size: int,
        position: int,
        lengths: Buffer,
        n: int,
        wide: bool,
        symbols: Buffer,
        /,
    ) -> int:
        """Fill `symbols` (of two bytes if wide) from bit `position` on; the bit after them."""
        ...

    def table_words(self, lengths: Buffer, /) -> bytes:
        """Codewords as the writers take them."""
        ...

    def write_run(
        self, symbols: Buffer, wide: bool, words: Words, bit: int, begun: int, /
    ) -> tuple[bytes, int]:
        """Bytes from the byte `begun` on, of which `bit` bits are there, and the bit after the run."""
        ...

    def write_slab(
        self, encoding: int, parameters: Buffer, levels: Buffer, tables: tuple[Words, ...], /
    ) -> bytes:
        """A slab of a Huffman encoding."""
        ...

    def write_packed(self, levels: Buffer, lowest: int, bits: int, /) -> bytes:
        """Levels at a fixed width."""
        ...

    def levels_of(
        self,
        codes: Buffer,
        support: Buffer | None,
        signed: bool,
        centres: Buffer,
        inner: int,
        start: int,
        levels: Buffer,
        /,
    ) -> None:
        """Fill `levels`."""

    def count_levels(self, levels: Buffer, counts: Buffer, /) -> None:
        """Add to 513 counts."""

    def count_gaps(self, levels: Buffer, counts: Buffer, /) -> None:
        """Add to 8 x 256 counts, one row for each width."""

    def count_kernels(
        self,
        levels: Buffer,
        taps: int,
        width: int,
        contexts: int,
        masks: Buffer,
        counts: Buffer,
        /,
    ) -> None:
        """Add to ``2**taps`` counts of masks and ``contexts * 513`` of levels."""

    def count_sign_rows(self, levels: Buffer, parameters: Buffer, signs: Buffer, groups: Buffer, /) -> None:
        """Add to ``n * (n // 2 + 2)`` counts of the `n` symbols of rows, and to 7 rows of counts of groups."""

    def count_planes(self, values: Buffer, width: int, counts: Buffer, /) -> None:
        """Add to ``width * 256`` counts of bytes, those of first bytes first."""

    def scan_floats(self, values: Buffer, onnx_type: int, /) -> tuple[int, int, int, int]:
        """Of elements but +0: lowest and highest exponent (65535 and 0 for none), bits of mantissas, how many."""
        ...

    def float_levels(self, values: Buffer, onnx_type: int, exponent: int, levels: Buffer, /) -> None:
        """Fill `levels`; `exponent` is that of level 1."""

    def write_mantissas(self, values: Buffer, onnx_type: int, raw_bits: int, /) -> bytes:
        """The highest bits of the mantissas of all elements but +0."""
        ...

    def mixed_encode(
        self,
        mixing: Buffer,
        levels: Buffer,
        rows: int,
        inputs: int,
        taps: int,
        kernel_width: int,
        lowest: int,
        highest: int,
        linked: bool,
        /,
    ) -> bytes:
        """A stream of mixed contexts."""
        ...

    def mixed_decode(
        self,
        mixing: Buffer,
        stream: Buffer,
        rows: int,
        inputs: int,
        taps: int,
        kernel_width: int,
        lowest: int,
        highest: int,
        linked: bool,
        levels: Buffer,
        /,
    ) -> int:
        """Fill `levels`; -1, or the byte where a stream ends that should not."""
        ...
