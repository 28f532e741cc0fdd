"""What each output channel of a layer starts with and is multiplied by, in as few bits as the layer needs.

Biases are spread over some 16 bits, and the factors of one layer lie within a few powers of two: as integers less the
smallest of the layer, both take fewer bits than their types have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelpress.export.coding.bits import pack_codewords
from modelpress.export.firmware.scales import multiplier


@dataclass(frozen=True)
class Column:
    """One number of every channel: `least`, and what is above that in `bits` bits."""

    least: int
    bits: int


@dataclass(frozen=True, eq=False)
class PackedChannels:
    """The channels of a layer, one after the other, each its bias, its factor and, of integers, its shift.

    Attributes:
        data: All bits, the lowest of each number first.
        bias: Of signed integers.
        factor: Of the bits of a float32, or of a multiplier.
        shift: Of integers only.
    """

    data: bytes
    bias: Column
    factor: Column
    shift: Column | None

    def fields(self) -> dict[str, str]:
        """As `press_nn_weights` has them, but for the bits themselves."""
        shift = self.shift or Column(0, 0)
        return {
            "least_bias": str(self.bias.least),
            "least_factor": f"{self.factor.least}u",
            "least_shift": str(shift.least),
            "bias_bits": str(self.bias.bits),
            "factor_bits": str(self.factor.bits),
            "shift_bits": str(shift.bits),
        }


def pack_channels(bias: npt.NDArray[np.int64], factors: Sequence[float], *, integers: bool) -> PackedChannels:
    """The channels of a layer.

    Args:
        bias: Shape ``(outputs,)``, within 32 bits.
        factors: Of as many outputs; float32 values, or for `integers` any.
        integers: Whether factors become multipliers and shifts.

    Example:
        >>> packed = pack_channels(np.array([-3, 4]), [1.0, 1.5], integers=False)
        >>> packed.bias, packed.factor.bits, len(packed.data)
        (Column(least=-3, bits=3), 23, 7)
    """
    columns = [np.asarray(bias, np.int64)]
    if integers:
        pairs = np.array([multiplier(factor) for factor in factors], np.int64).reshape(-1, 2)
        columns += [pairs[:, 0], pairs[:, 1]]
    else:
        columns.append(np.asarray(factors, np.float32).view(np.uint32).astype(np.int64))

    found = [Column(int(c.min()), int(c.max() - c.min()).bit_length()) for c in columns]
    rest = np.stack([c - column.least for c, column in zip(columns, found, strict=True)], axis=1)
    lengths = np.broadcast_to(np.array([column.bits for column in found]), rest.shape)
    data = pack_codewords(rest.reshape(-1), lengths.reshape(-1))
    return PackedChannels(data, found[0], found[1], found[2] if integers else None)
