#!/usr/bin/env python3
"""Turn an ONNX file with packed weights into a plain one, for runtimes and tools that want weights as constants.

    python expand.py model-sparse.onnx model-plain.onnx

Computes what a runtime computes when it loads the file, bit for bit: every node that depends on constants alone.
DequantizeLinear stays, so that int8 weights stay int8. Needs numpy and onnx.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = Any  # an array of numpy, of any type
FLAVOUR_METADATA = "modelpress.flavour"
_PLAIN_NAMES = {
    "weight-only": None,
    "sparse": None,
    "int8-sparse": "int8",
}  # None: of flavour float, which has none
_STANDARD = ("", "ai.onnx")


def _cast(node: onnx.NodeProto, x: Array) -> Array:
    return x.astype(helper.tensor_dtype_to_np_dtype(_attribute(node, "to", None)))


def _reshape(node: onnx.NodeProto, x: Array, shape: Array) -> Array:
    if not _attribute(node, "allowzero", 0):
        shape = [x.shape[k] if n == 0 else n for k, n in enumerate(shape.tolist())]
    return x.reshape([int(n) for n in shape])


def _split(node: onnx.NodeProto, x: Array, sizes: Array) -> list[Array]:
    return np.split(x, np.cumsum(sizes)[:-1].tolist(), axis=_attribute(node, "axis", 0))


def _cumulated(node: onnx.NodeProto, x: Array, axis: Array) -> Array:
    if _attribute(node, "exclusive", 0) or _attribute(node, "reverse", 0):
        raise NotImplementedError
    return np.cumsum(x, axis=int(axis), dtype=x.dtype)


def _shifted(node: onnx.NodeProto, x: Array, by: Array) -> Array:
    return x >> by if _attribute(node, "direction", b"") == b"RIGHT" else x << by


def _quotient(node: onnx.NodeProto, x: Array, y: Array) -> Array:
    if x.dtype.kind != "f":
        raise NotImplementedError  # of integers it rounds towards zero
    return x / y


def _remainder(node: onnx.NodeProto, x: Array, y: Array) -> Array:
    if x.dtype.kind == "f":
        raise NotImplementedError
    return np.mod(x, y)


_OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": lambda node, x, y: x + y,
    "BitShift": _shifted,
    "Cast": _cast,
    "Concat": lambda node, *parts: np.concatenate(parts, axis=_attribute(node, "axis", 0)),
    "CumSum": _cumulated,
    "Div": _quotient,
    "Equal": lambda node, x, y: np.equal(x, y),
    "Floor": lambda node, x: np.floor(x),
    "GatherElements": lambda node, x, at: np.take_along_axis(x, at, axis=_attribute(node, "axis", 0)),
    "Identity": lambda node, x: x,
    "MatMul": lambda node, x, y: x @ y,
    "Mod": _remainder,
    "Mul": lambda node, x, y: x * y,
    "Not": lambda node, x: np.logical_not(x),
    "Reshape": _reshape,
    "Round": lambda node, x: np.rint(x),
    "Split": _split,
    "Sub": lambda node, x, y: x - y,
    "Where": lambda node, condition, x, y: np.where(condition, x, y),
}


def expand(model: onnx.ModelProto) -> int:
    """Compute in place what depends on constants alone; returns the number of nodes that are gone.

    Nodes whose operator is none of the few that packed weights need are left as they are, and so are nested graphs.
    """
    graph = model.graph
    replaceable = {value.name for value in graph.input}  # a caller may pass another value for such a one
    constants = {t.name: t for t in graph.initializer if t.name not in replaceable}
    values: dict[str, Array] = {}

    left = []
    for node in graph.node:
        results = _computed(node, constants, values)
        if results is None:
            left.append(node)
        else:
            values.update(zip(node.output, results))

    n_gone = len(graph.node) - len(left)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in left]
    read = {name for node in kept for name in _names_read(node)} | {value.name for value in graph.output}

    # what only the expansion read goes with it
    stored = [t for t in graph.initializer if t.name in read or t.name in replaceable]
    stored = [onnx.TensorProto.FromString(t.SerializeToString()) for t in stored]
    stored += [numpy_helper.from_array(np.ascontiguousarray(values[n]), n) for n in values if n in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(stored)
    shown = [value for value in graph.value_info if value.name not in values]
    shown = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in shown]
    del graph.value_info[:]
    graph.value_info.extend(shown)

    _name_flavour(model)
    return n_gone


def _computed(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], values: dict[str, Array]
) -> list[Array] | None:
    """The outputs of a node; None where it reads anything but constants, or does what is not known here."""
    operator = _OPERATORS.get(node.op_type) if node.domain in _STANDARD else None
    if operator is None or not node.input:
        return None
    if any(name not in values and name not in constants for name in node.input):
        return None

    arrays = [values[n] if n in values else numpy_helper.to_array(constants[n]) for n in node.input]
    try:
        with np.errstate(all="ignore"):
            result = operator(node, *arrays)
    except (NotImplementedError, TypeError):  # a form of the operator that packed weights do not use
        return None

    return result if isinstance(result, list) else [np.asarray(result)]


def _names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node, or any graph inside it, reads."""
    yield from node.input
    for attribute in node.attribute:
        for part in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from (value.name for value in part.output)
            for inner in part.node:
                yield from _names_read(inner)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _name_flavour(model: onnx.ModelProto) -> None:
    """Say in the metadata what the file has become."""
    entries = [(entry.key, entry.value) for entry in model.metadata_props]
    del model.metadata_props[:]
    for key, value in entries:
        plain = _PLAIN_NAMES.get(value, value) if key == FLAVOUR_METADATA else value
        if plain is not None:
            model.metadata_props.add(key=key, value=plain)


def main(arguments: Sequence[str]) -> int:
    """Read one file, write the other; returns the exit code."""
    if len(arguments) != 2:
        print(f"usage: {Path(__file__).name} PACKED.onnx PLAIN.onnx", file=sys.stderr)
        return 2

    source, target = map(Path, arguments)
    try:
        model = onnx.load(source)
        n_gone = expand(model)
        part = target.with_name(f".{target.name}.part")
        part.write_bytes(model.SerializeToString())
        part.replace(target)
    except Exception as error:  # a damaged file raises whatever protobuf, onnx and numpy make of it
        print(f"{source}: cannot be expanded: {error}", file=sys.stderr)
        return 1

    print(f"{target}: {target.stat().st_size:,} bytes, {n_gone} nodes computed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
