"""Tensors with infinities or NaN, which an artifact's tensors do not hold, as parts of the graph, bit for bit.

A small one becomes a `Constant`. A large one is computed from what an artifact holds: its finite entries, the places
of the others, and a small `Constant` with their values; runtimes fold that when they load the model.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelpress.export.errors import ModelError
from modelpress.export.files.blocks import blocks

Array = npt.NDArray[np.generic]
MAX_CONSTANT_BYTES = 1 << 16
_MOST_KINDS = 255  # of entries that are not finite: one byte tells them apart
_BITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


def is_finite(array: Array) -> bool:
    """Whether a tensor holds neither infinities nor NaN; integers never do."""
    return array.dtype.kind != "f" or all(np.isfinite(block).all() for block in blocks(array))


@dataclass(frozen=True)
class Spelling:
    """How a tensor that is not finite is spelt out.

    Attributes:
        nodes: The last of them makes it.
        parts: Tensors that they read, made when asked for from the tensor itself.
    """

    nodes: list[onnx.NodeProto]
    parts: dict[str, Callable[[Array], Array]] = field(default_factory=dict)


def spelt_out(name: str, array: Array, *, unused: Callable[[str], str]) -> Spelling:
    """Nodes that make a tensor that is not finite.

    Args:
        name: Of the tensor.
        array: Its values.
        unused: Gives a name that nothing has yet, like the one it gets.

    Raises:
        ModelError: It is large, and holds too many kinds of NaN.
    """
    if array.nbytes <= MAX_CONSTANT_BYTES:
        return Spelling([_constant(name, array)])

    values = np.unique(array[~np.isfinite(array)].view(_BITS[array.dtype.itemsize]))
    if len(values) > _MOST_KINDS:
        raise ModelError(f"{name}: holds {len(values):,} kinds of NaN; expected at most {_MOST_KINDS}")

    finite, kinds, table, number, where, chosen = (
        unused(f"{name}.{part}") for part in ("finite", "kinds", "values", "number", "where", "chosen")
    )
    table_values = np.concatenate([values[:1], values]).view(array.dtype)  # number 0 is never chosen
    nodes = [
        _constant(table, table_values),
        helper.make_node("Cast", [kinds], [number], to=TensorProto.INT32),
        helper.make_node("Gather", [table, number], [chosen], axis=0),
        helper.make_node("Cast", [kinds], [where], to=TensorProto.BOOL),
        helper.make_node("Where", [where, chosen, finite], [name]),
    ]
    parts: dict[str, Callable[[Array], Array]] = {
        finite: lambda whole: np.where(np.isfinite(whole), whole, whole.dtype.type(0)),
        kinds: lambda whole: _kinds_of(whole, values),
    }
    return Spelling(nodes, parts)


def _constant(name: str, array: Array) -> onnx.NodeProto:
    stored = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(stored))


def _kinds_of(array: Array, values: Array) -> npt.NDArray[np.uint8]:
    """0 at finite entries, else the number of the value, from 1 on."""
    kinds = np.zeros(array.shape, np.uint8)
    places = ~np.isfinite(array)
    kinds[places] = np.searchsorted(values, array[places].view(values.dtype)) + 1
    return kinds
