"""Where the axes of a stored tensor lie after nodes that move its entries, or only change their type."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from modelpress.export.graphs.operators import is_standard

Array = npt.NDArray[np.generic]
ConstantOf = Callable[[str], Array | None]
_SAME_ENTRIES = frozenset({"Identity", "Cast", "CastLike", "QuantizeLinear", "DequantizeLinear"})
_BY_FACTORS = frozenset({"Mul", "Div", "Add", "Sub", "Where"})  # a weight that is scaled, shifted or masked


@dataclass(frozen=True)
class View:
    """A stored tensor as nodes hand it on.

    Attributes:
        source: Which tensor.
        shape: After the nodes.
        axes: Of each axis of `shape`, the axis of the tensor that it is; None where it is none of them.
        is_quantized: Whether the entries have been rounded to a grid on the way.

    Example:
        >>> View.of("w", (4, 3)).moved(shape=(3, 4), axes=(1, 0))
        View(source='w', shape=(3, 4), axes=(1, 0), is_quantized=False)
    """

    source: str
    shape: tuple[int, ...]
    axes: tuple[int | None, ...]
    is_quantized: bool = False

    @classmethod
    def of(cls, source: str, shape: Sequence[int]) -> "View":
        """A tensor as it is stored."""
        return cls(source, tuple(shape), tuple(range(len(shape))))

    def moved(self, *, shape: Sequence[int], axes: Sequence[int | None]) -> "View":
        """Behind a node; `axes` are numbered in the view before it."""
        behind = tuple(None if axis is None else self.axes[axis] for axis in axes)
        return replace(self, shape=tuple(shape), axes=behind)


def views_behind(
    node: onnx.NodeProto, views: Sequence[Sequence[View]], constant_of: ConstantOf
) -> list[list[View]]:
    """What each output of a node shows of the tensors that its inputs show; nothing where it computes something else.

    Args:
        node: Any.
        views: Of each of its inputs.
        constant_of: The value of a small constant by name.
    """
    nothing: list[list[View]] = [[] for _ in node.output]
    if not is_standard(node) or not any(views):
        return nothing

    try:
        if node.op_type == "Concat":
            return [_joined(views, _attribute(node, "axis", 0))]
        if node.op_type in _BY_FACTORS:
            return [_broadcast(views)]
        if node.op_type == "Split":
            return _split(node, views[0], constant_of)

        behind = [_behind(node, view, constant_of) for view in views[0]]
    except (IndexError, ValueError, TypeError, ZeroDivisionError):  # a node that contradicts the shapes
        return nothing
    return [[view for view in behind if view is not None], *nothing[1:]]


def _behind(  # noqa: PLR0911 - one line per operator
    node: onnx.NodeProto, view: View, constant_of: ConstantOf
) -> View | None:
    n_axes = len(view.shape)
    if node.op_type in _SAME_ENTRIES:
        return replace(view, is_quantized=view.is_quantized or node.op_type == "QuantizeLinear")
    if node.op_type == "Transpose":
        order = _attribute(node, "perm", list(range(n_axes))[::-1])
        return view.moved(shape=[view.shape[axis] for axis in order], axes=order)

    arguments = [constant_of(name) for name in node.input[1:]]
    if any(argument is None for argument in arguments):
        return None

    values = [argument.tolist() for argument in arguments if argument is not None]
    match node.op_type:
        case "Reshape" if values:
            return _reshaped(view, values[0], _attribute(node, "allowzero", 0))
        case "Flatten":
            axis = _attribute(node, "axis", 1) % (n_axes + 1)
            return _reshaped(view, [prod(view.shape[:axis]), prod(view.shape[axis:])], 1)
        case "Unsqueeze" | "Squeeze":
            axes = values[0] if values else _attribute(node, "axes", None)
            return None if axes is None else _with_axes(view, axes, add=node.op_type == "Unsqueeze")
        case "Slice":
            # before opset 10 the bounds were attributes
            old = (_attribute(node, name, None) for name in ("starts", "ends", "axes"))
            return _sliced(view, *(values or [value for value in old if value is not None]))
    return None


def _reshaped(view: View, target: Sequence[int], allow_zero: int) -> View:
    """An axis stays one where as many entries lie before it, and it is as long, as before."""
    shape = [view.shape[k] if n == 0 and not allow_zero else int(n) for k, n in enumerate(target)]
    if -1 in shape:
        known = prod(n for n in shape if n != -1)
        shape[shape.index(-1)] = prod(view.shape) // known

    before = {(prod(view.shape[:k]), n): k for k, n in enumerate(view.shape)}
    return view.moved(shape=shape, axes=[before.get((prod(shape[:k]), n)) for k, n in enumerate(shape)])


def _with_axes(view: View, axes: Sequence[int], *, add: bool) -> View:
    n_axes = len(view.shape) + (len(axes) if add else 0)
    changed = {int(axis) % n_axes for axis in axes}
    if not add:
        kept = [k for k in range(n_axes) if k not in changed]
        return view.moved(shape=[view.shape[k] for k in kept], axes=kept)

    old = iter(range(len(view.shape)))
    places: list[int | None] = [None if k in changed else next(old) for k in range(n_axes)]
    return view.moved(shape=[1 if k is None else view.shape[k] for k in places], axes=places)


def _sliced(
    view: View,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> View:
    shape = list(view.shape)
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = k if axes is None else axes[k]
        step = 1 if steps is None else steps[k]
        shape[axis] = len(range(*slice(start, end, step).indices(view.shape[axis])))
    return view.moved(shape=shape, axes=range(len(shape)))


def _split(node: onnx.NodeProto, views: Sequence[View], constant_of: ConstantOf) -> list[list[View]]:
    sizes = constant_of(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    lengths: Sequence[int] | None = _attribute(node, "split", None) if sizes is None else sizes.tolist()
    parts: list[list[View]] = [[] for _ in node.output]

    for view in views:
        axis = _attribute(node, "axis", 0) % len(view.shape)
        each = -(-view.shape[axis] // len(node.output))
        for k, part in enumerate(parts):
            n = each if lengths is None else lengths[k]
            shape = [*view.shape[:axis], n, *view.shape[axis + 1 :]]
            part.append(view.moved(shape=shape, axes=range(len(shape))))
    return parts


def _joined(views: Sequence[Sequence[View]], axis: int) -> list[View]:
    """Side by side; nothing where one of them is not known."""
    if not all(views):
        return []
    first = views[0][0]
    axis %= len(first.shape)
    shape = list(first.shape)
    shape[axis] = sum(own[0].shape[axis] for own in views)
    return [view.moved(shape=shape, axes=range(len(shape))) for own in views for view in own]


def _broadcast(views: Sequence[Sequence[View]]) -> list[View]:
    """Those that are not stretched by the others; nothing where activations take part."""
    if not all(views):
        return []
    shape = np.broadcast_shapes(*(own[0].shape for own in views))
    return [view for own in views for view in own if view.shape == shape]


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
