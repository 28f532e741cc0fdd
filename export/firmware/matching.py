"""What the attributes of a node say, in the words of `network`."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.firmware.network import Activation, Window
from modelpress.export.firmware.shapes import Shape

_PLANE_AXES = 2
Constants = Mapping[str, npt.NDArray[np.generic]]


class Attributes:
    """The attributes of a node by name, each with the default of the standard."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self._all = {attribute.name: attribute for attribute in node.attribute}

    def number(self, name: str, default: int) -> int:
        """An integer."""
        return int(self._all[name].i) if name in self._all else default

    def numbers(self, name: str, default: list[int]) -> list[int]:
        """A list of integers."""
        return [int(n) for n in self._all[name].ints] if name in self._all else default

    def real(self, name: str, default: float) -> float:
        """A float."""
        return float(self._all[name].f) if name in self._all else default

    def text(self, name: str, default: str) -> str:
        """A string."""
        return self._all[name].s.decode() if name in self._all else default


def bounds_of_clip(node: onnx.NodeProto, constants: Constants) -> tuple[float, float] | None:
    """Between which values a Relu or Clip holds what it is given; None where they are no constants.

    Example:
        >>> bounds_of_clip(onnx.helper.make_node("Relu", ["x"], ["y"]), {})
        (0.0, inf)
    """
    if node.op_type == "Relu":
        return 0.0, np.inf
    attributes = Attributes(node)
    bounds = [attributes.real("min", -np.inf), attributes.real("max", np.inf)]
    for k, name in enumerate(node.input[1:3]):
        if name:
            if name not in constants:
                return None
            bounds[k] = float(constants[name].item())
    return bounds[0], bounds[1]


def is_global_average(node: onnx.NodeProto, constants: Constants, shapes: Mapping[str, Shape]) -> bool:
    """Whether a ReduceMean goes over all rows and columns of every plane."""
    if node.op_type != "ReduceMean":
        return False
    axes = Attributes(node).numbers("axes", [])
    if not axes and len(node.input) > 1 and node.input[1] in constants:
        axes = [int(n) for n in constants[node.input[1]].reshape(-1)]
    rank = len(shapes.get(node.input[0], ()))
    return rank > _PLANE_AXES and sorted(axis % rank for axis in axes) == list(range(2, rank))


def window_of(node: onnx.NodeProto, read: Activation, made: Activation) -> Window | None:
    """The window of a pool; None for what firmware has no form of."""
    attributes = Attributes(node)
    kernel = attributes.numbers("kernel_shape", [])
    return _window(attributes, kernel, (read.height, read.width), (made.height, made.width))


def weight_window(node: onnx.NodeProto, shape: Shape, read: Activation, made: Shape) -> Window | None:
    """The window of a convolution with weights of this shape, which makes an activation of shape `made`."""
    if not 1 <= len(made) - 2 <= _PLANE_AXES:
        return None
    height, width = [1, *made[2:]][-_PLANE_AXES:]
    return _window(Attributes(node), list(shape[2:]), (read.height, read.width), (height, width))


def _window(
    attributes: Attributes, kernel: list[int], read: tuple[int, int], made: tuple[int, int]
) -> Window | None:
    n = len(kernel)
    if not 1 <= n <= _PLANE_AXES:
        return None
    strides, dilations = attributes.numbers("strides", [1] * n), attributes.numbers("dilations", [1] * n)
    pads = attributes.numbers("pads", [0] * (2 * n))
    rule = attributes.text("auto_pad", "NOTSET")
    if rule.startswith("SAME"):
        pads = _same_pads(kernel, strides, dilations, read[-n:], made[-n:], upper=rule == "SAME_UPPER")

    if n == 1:  # along the one row of each plane
        kernel, strides, dilations, pads = (
            [1, *kernel],
            [1, *strides],
            [1, *dilations],
            [0, pads[0], 0, pads[1]],
        )
    if attributes.number("ceil_mode", 0) and attributes.number("count_include_pad", 0):
        return None
    return Window(
        height=kernel[0],
        width=kernel[1],
        stride_rows=strides[0],
        stride_columns=strides[1],
        pad_top=pads[0],
        pad_left=pads[1],
        pad_bottom=pads[2],
        pad_right=pads[3],
        dilation_rows=dilations[0],
        dilation_columns=dilations[1],
    )


def _same_pads(
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    read: tuple[int, ...],
    made: tuple[int, ...],
    *,
    upper: bool,
) -> list[int]:
    totals = [
        max((m - 1) * s + (k - 1) * d + 1 - r, 0)
        for k, s, d, r, m in zip(kernel, strides, dilations, read, made, strict=True)
    ]
    less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return [*less, *more] if upper else [*more, *less]
