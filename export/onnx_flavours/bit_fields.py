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
    """Nodes that undo `pack_fields`, with operators that runtimes of all kinds have: no shifts, no remainders.

    Returns:
        Name of a float32 vector, and its length: that of the values, or a few zeros more.
    """
    whole = nodes.cast(nodes.constant(packed), np.float32)
    if bits == 8:
        return whole, packed.size
    if bits in _IN_A_BYTE:
        return _narrow(nodes, whole, bits), packed.size * 8 // bits

    n_values = packed.size * 8 // bits
    planes = _narrow(nodes, whole, 1)
    used = nodes.split(planes, [n_values * bits], total=packed.size * 8)[0]
    powers = nodes.constant(2.0 ** np.arange(bits - 1, -1, -1), np.float32)

    return nodes.node("MatMul", nodes.reshape(used, (n_values, bits)), powers), n_values


def _narrow(nodes: ConstantNodes, packed: str, bits: int) -> str:
    """Fields of 1, 2 or 4 bits of a vector of bytes; exact, as every number is below 2**8."""
    units = 2.0 ** np.arange(8 - bits, -1, -bits)  # what the lowest bit of each field is worth
    size = nodes.constant(1 << bits, np.float32)

    shifted = nodes.node("Div", nodes.reshape(packed, (-1, 1)), nodes.constant(units, np.float32))
    from_here = nodes.node("Floor", shifted)
    above = nodes.node("Floor", nodes.node("Div", from_here, size))
    fields = nodes.node("Sub", from_here, nodes.node("Mul", above, size))
    return nodes.reshape(fields, (-1,))
