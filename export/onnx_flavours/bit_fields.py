"""Codes of a few bits in bytes, and the nodes that take them apart again."""

import numpy as np
import numpy.typing as npt

from modelpress.export.onnx_flavours.constant_nodes import ConstantNodes

_IN_A_BYTE = (1, 2, 4)  # widths of which a whole number makes a byte


def pack_fields(values: npt.NDArray[np.uint8], *, bits: int) -> npt.NDArray[np.uint8]:
    """Numbers below ``2**bits`` one after the other, the highest bit first; zeros fill the last byte.

    Example:
        >>> pack_fields(np.array([1, 2, 3], np.uint8), bits=4)
        array([18, 48], dtype=uint8)
    """
    if bits == 8:
        return values
    planes = [values >> shift & 1 for shift in range(bits - 1, -1, -1)]
    return np.packbits(np.stack(planes, axis=1))


def unpack_fields(nodes: ConstantNodes, packed: npt.NDArray[np.uint8], *, bits: int) -> tuple[str, int]:
    """Nodes that undo `pack_fields`.

    Returns:
        Name of a vector, uint8 or float32, and its length: that of the values, or a few zeros more.
    """
    name = nodes.constant(packed)
    if bits == 8:
        return name, packed.size
    if bits in _IN_A_BYTE:
        return _narrow(nodes, name, bits), packed.size * 8 // bits

    n_values = packed.size * 8 // bits
    planes = _narrow(nodes, name, 1)
    whole = nodes.split(planes, [n_values * bits], total=packed.size * 8)[0]
    table = nodes.cast(nodes.reshape(whole, (n_values, bits)), np.float32)
    powers = nodes.constant(2.0 ** np.arange(bits - 1, -1, -1), np.float32)

    return nodes.node("MatMul", table, powers), n_values


def _narrow(nodes: ConstantNodes, packed: str, bits: int) -> str:
    """Fields of 1, 2 or 4 bits of a vector of bytes, as uint8."""
    column = nodes.reshape(packed, (-1, 1))
    shifts = nodes.constant(np.arange(8 - bits, -1, -bits), np.uint8)
    shifted = nodes.node("BitShift", column, shifts, direction="RIGHT")
    fields = nodes.node("Mod", shifted, nodes.constant(1 << bits, np.uint8))
    return nodes.reshape(fields, (-1,))
