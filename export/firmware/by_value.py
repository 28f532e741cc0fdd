"""Which layers add up inputs of equal weights before they multiply; see press_nn_by_value.h."""

import numpy as np
import numpy.typing as npt

from modelpress.export.firmware.arena import Planes
from modelpress.export.firmware.coded_weights import CodedLayer
from modelpress.export.firmware.network import Weights
from modelpress.export.firmware.scales import fits_wide

_MOST_VALUES, _MOST_RUNS, _MOST_OF_A_SUM, _LANES, _BLOCK = 32, 40, 128, 16, 8  # of the C code
_MOST_PLACE = 0xFFFF

# Instructions for one output on a Cortex-M4, from the loops' disassembly: for each weight, for each run of equal ones.
_ADD, _WEIGH = 1.0, 2.3
_WIDE, _PLAIN, _START = 2.1, 3.4, 12.0  # for each weight, by two or one product at a time; and for all


def goes_by_value(weights: Weights, coded: CodedLayer, read: Planes, made: Planes) -> bool:
    """Whether that is possible, and takes fewer instructions than products one by one."""
    window = weights.window
    runs = _runs(weights)
    fits = coded.n_values <= _MOST_VALUES and runs.max(initial=0) <= _MOST_RUNS
    near = (weights.inputs + 1) * read.pitch <= _MOST_PLACE  # kernels may reach beyond the last plane
    if window.stride_columns > 2 or not fits or not near:
        return False

    columns, rows = _extent(weights, read, made)
    nonzeros = np.count_nonzero(weights.rows, axis=1).mean()
    together = _LANES // window.stride_columns
    lanes = -(-columns // together) * _LANES
    blocks = -(-columns // _BLOCK) * _BLOCK
    each = _WIDE if window.stride_columns == 1 and fits_wide(weights) else _PLAIN
    by_value = rows * lanes * (_ADD * nonzeros + _WEIGH * runs.mean())
    return bool(by_value < rows * blocks * (each * nonzeros + _START))


def _runs(weights: Weights) -> npt.NDArray[np.int64]:
    """Of each output: how many sums, each of a limited number of inputs."""
    return np.array(
        [
            sum(-(-n // _MOST_OF_A_SUM) for n in np.unique(row[row != 0], return_counts=True)[1])
            for row in weights.rows
        ],
        np.int64,
    )


def _extent(weights: Weights, read: Planes, made: Planes) -> tuple[int, int]:
    """Columns and rows of a plane as the kernel sees them: all rows as one where input and output lie alike."""
    height, width = made.activation.height, made.activation.width
    window = weights.window
    if read.row == made.row and window.stride_rows == window.stride_columns == 1:
        return (height - 1) * made.row + width, 1
    return width, height
