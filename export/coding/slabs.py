"""Large tensors in slabs, so that working memory does not grow with the tensor and slabs can be decoded in parallel."""

import struct

from modelpress.export.coding.byte_parts import PartReader, PartWriter

SLAB_ELEMENTS = 1 << 24


def slab_bounds(n_elements: int, *, per_slab: int | None = None) -> list[tuple[int, int]]:
    """First element and end of every slab, of 2**24 elements unless said otherwise.

    Example:
        >>> slab_bounds(20_000_000)
        [(0, 16777216), (16777216, 20000000)]
    """
    per_slab = per_slab or SLAB_ELEMENTS
    return [(start, min(start + per_slab, n_elements)) for start in range(0, n_elements, per_slab)]


def write_slabs(writer: PartWriter, slabs: list[bytes]) -> None:
    """The length of each, if there are several, then all."""
    if len(slabs) > 1:
        writer.add("header", struct.pack(f"<{len(slabs)}I", *map(len, slabs)))
    for slab in slabs:
        writer.add("payload", slab)


def read_slabs(reader: PartReader, n_slabs: int) -> list[bytes]:
    """Undo `write_slabs`; a single one takes all bytes that are left.

    Raises:
        DamagedArtifact: The lengths go beyond the end.
    """
    if n_slabs == 1:
        return [reader.rest("payload")]
    lengths = reader.unpack(f"{n_slabs}I")
    return [reader.take("payload", length) for length in lengths]
