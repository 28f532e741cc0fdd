"""Encoding 13: byte planes, each under a Huffman code of its own where that is shorter; for any array.

Weights of one tensor share sign and exponent bits, not the low bits of the mantissa: of the planes (all first
bytes, all second bytes, …) the last ones compress and the others are left as they are.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.byte_parts import PartReader, PartWriter
from modelpress.export.coding.code_table import CodeTable, Counts
from modelpress.export.coding.core import core
from modelpress.export.coding.slabs import read_slabs, slab_bounds, write_slabs
from modelpress.export.coding.symbol_runs import LANE_SYMBOLS, RunReader, RunWriter
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings.raw import check_values
from modelpress.export.tensor_spec import CARRIERS, TensorSpec

Array = npt.NDArray[np.generic]
_PLAIN, _CODED = 0, 1


@dataclass(frozen=True)
class PlanesPlan:
    """What would be written.

    Attributes:
        tables: Per plane, its code; None where the plane is left as it is.
        n_bytes: Of the blob, without the padding of lanes.
    """

    tables: tuple[CodeTable | None, ...]
    n_bytes: int


def survey(array: Array) -> PlanesPlan:
    """Count the bytes of every plane."""
    counts = np.zeros((array.dtype.itemsize, 256), np.int64)
    bounds = slab_bounds(array.size)
    for start, stop in bounds:
        _count(_planes(array, start, stop), counts)

    tables, n_bytes = [], array.dtype.itemsize + 4 * len(bounds) * (len(bounds) > 1)
    for row in counts:
        table = CodeTable.for_counts(Counts(0, row))
        # 20 bits for each lane: its padding and where it starts
        bits = table.payload_bits(Counts(0, row)) + 20 * array.size // LANE_SYMBOLS
        coded = len(table.pack()) + (bits + 7) // 8
        tables.append(table if coded < array.size else None)
        n_bytes += min(coded, array.size)

    return PlanesPlan(tuple(tables), n_bytes)


def encode(array: Array, plan: PlanesPlan) -> PartWriter:
    """Tables, then slabs of planes."""
    writer = PartWriter()
    for table in plan.tables:
        writer.add("header", bytes([_PLAIN if table is None else _CODED]))
        if table is not None:
            writer.add("tables", table.pack())

    slabs = []
    for start, stop in slab_bounds(array.size):
        runs = RunWriter()
        for plane, table in zip(_planes(array, start, stop).T, plan.tables, strict=True):
            if table is None:
                runs.add_bytes(plane.tobytes())
            else:
                runs.add(plane - np.uint8(table.lowest), table)
        slabs.append(runs.data())

    write_slabs(writer, slabs)
    return writer


def decode(reader: PartReader, spec: TensorSpec) -> Array:
    """Undo `encode`.

    Raises:
        DamagedArtifact: A table or run is damaged, or a value is not allowed.
    """
    dtype = CARRIERS[spec.onnx_type]
    tables = [_read_table(reader) for _ in range(dtype.itemsize)]
    elements = np.empty((spec.size, dtype.itemsize), np.uint8)

    bounds = slab_bounds(spec.size)
    for (start, stop), slab in zip(bounds, read_slabs(reader, len(bounds)), strict=True):
        runs = RunReader(slab)
        for k, table in enumerate(tables):
            if table is None:
                elements[start:stop, k] = np.frombuffer(runs.take_bytes(stop - start), np.uint8)
            else:
                elements[start:stop, k] = runs.take(table, stop - start) + np.uint8(table.lowest)
        runs.finish()

    return check_values(elements.reshape(-1).view(dtype).reshape(spec.shape))


def _count(planes: npt.NDArray[np.uint8], counts: npt.NDArray[np.int64]) -> None:
    """Add the bytes of some elements, shape ``(n, itemsize)``, to the counts of every plane."""
    functions = core()
    if functions is not None:
        functions.count_planes(planes, planes.shape[1], counts)
        return
    for k, plane in enumerate(planes.T):
        counts[k] += np.bincount(plane, minlength=256)


def _planes(array: Array, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Shape ``(stop - start, itemsize)``; the little-endian bytes of some elements."""
    part = array.reshape(-1)[start:stop]
    return part.astype(part.dtype.newbyteorder("<"), copy=False).view(np.uint8).reshape(stop - start, -1)


def _read_table(reader: PartReader) -> CodeTable | None:
    (kind,) = reader.unpack("B")
    if kind == _PLAIN:
        return None
    if kind != _CODED:
        raise DamagedArtifact(f"byte plane of kind {kind} is not defined")

    table = CodeTable.read(reader)
    if table.lowest < 0 or table.lowest + table.lengths.size > 256:
        raise DamagedArtifact("code table of a byte plane goes beyond a byte")

    return table
