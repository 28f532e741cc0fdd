"""Nodes that compute constants: standard operators on initializers, which a runtime folds when it loads a model."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from modelpress.export.graphs.parts import names_in

MIN_OPSET = 13  # Split and the reductions take their sizes as inputs since then
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass
class ConstantNodes:
    """Emits one node per call; equal constants are stored once.

    Methods take and return names of tensors, as short as the model's own names allow.

    Attributes:
        names: New names, none of which the model uses.
        nodes: In an order in which they can be computed.
        tensors: The initializers that the nodes read.

    Example:
        >>> made = ConstantNodes(iter("abc"))
        >>> made.node("Mul", made.constant(np.float32(2)), made.constant(np.float32(2)))
        'b'
        >>> made.nodes[0].input, sorted(made.tensors)
        (['a', 'a'], ['a'])
    """

    names: Iterator[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    _known: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> str:
        """An initializer."""
        array = np.asarray(value, dtype)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._known:
            self._known[key] = name = next(self.names)
            self.tensors[name] = array
        return self._known[key]

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """An operator with one output, which gets a new name unless one is given."""
        result = output or next(self.names)
        self.nodes.append(helper.make_node(op, inputs, [result], **attributes))
        return result

    def cast(self, x: str, dtype: npt.DTypeLike, *, output: str | None = None) -> str:
        """The same numbers in another type."""
        return self.node("Cast", x, output=output, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def reshape(self, x: str, shape: Iterable[int], *, output: str | None = None) -> str:
        """The same entries in another shape."""
        return self.node("Reshape", x, self.constant(list(shape), np.int64), output=output)

    def rename_last(self, old: str, new: str) -> None:
        """Give the output of the last node its final name.

        Raises:
            ValueError: It is not called `old`.
        """
        if list(self.nodes[-1].output) != [old]:
            raise ValueError(f"the last node makes {self.nodes[-1].output}, not {old}")
        self.nodes[-1].output[0] = new

    def split(self, x: str, sizes: list[int], *, total: int) -> list[str]:
        """Consecutive pieces of a vector of `total` entries; what is left over is dropped."""
        if sizes == [total]:
            return [x]

        left = total - sum(sizes)
        pieces = [next(self.names) for _ in range(len(sizes) + (left > 0))]
        lengths = self.constant([*sizes, *[left] * (left > 0)], np.int64)
        self.nodes.append(helper.make_node("Split", [x, lengths], pieces, axis=0))
        return pieces[: len(sizes)]


def unused_names(model: onnx.ModelProto, tensors: Iterable[str]) -> Iterator[str]:
    """Short names that neither the graph nor any graph inside it uses."""
    taken = names_in(model) | {*tensors}
    return (name for number in count() if (name := _short(number)) not in taken)


def _short(number: int) -> str:
    """Like a spreadsheet's columns, with a letter first.

    Example:
        >>> [_short(n) for n in (0, 25, 26, 27, 26 + 26 * 36)]
        ['a', 'z', 'a0', 'a1', 'a00']
    """
    length, block = 0, 26
    while number >= block:
        number -= block
        block *= len(_DIGITS)
        length += 1

    name = ""
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        name = _DIGITS[digit] + name

    return _DIGITS[10 + number] + name


def in_front(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    """A copy of a graph in which these nodes come first."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    result.graph.node.extend(model.graph.node)
    return result
