"""An ONNX file as a graph without weights, and weights that are read when asked for.

The file is mapped, not loaded: a model of a gigabyte costs the memory of the tensor in use. It must not be
changed in place meanwhile; replacing it by a new file of the same name is safe.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from modelpress.export.errors import InputError, ModelError
from modelpress.export.files.mapped import MappedFile
from modelpress.export.graphs.bounds import check_bounds
from modelpress.export.graphs.conventions import MAX_NODES
from modelpress.export.graphs.entering.nested import initializers_to_constants, lift_constants
from modelpress.export.graphs.entering.order import sort_nodes
from modelpress.export.graphs.external_data import external_file, external_range
from modelpress.export.graphs.parts import graphs_of, has_external_data
from modelpress.export.graphs.protobuf_wire import LENGTH_DELIMITED, Field, fields
from modelpress.export.graphs.tensor_scan import (
    STAY_IN_GRAPH,
    StoredTensor,
    check_type,
    parse_shell,
    scan_constant,
    scan_tensor,
)
from modelpress.export.lazy_tensors import LazyTensors
from modelpress.export.shown import Facts, Shown
from modelpress.export.tensor_spec import (
    DTYPES,
    MAX_TENSORS,
    TensorSpec,
    array_of_raw,
    carrier_of,
    of_carrier,
)

Array = npt.NDArray[np.generic]
MAX_CONSTANT_ELEMENTS = 64  # smaller Constant nodes stay where they are
_MIN_CONSTANT_BYTES = 40  # no shorter node holds more elements, or names another file
_SEPARATE_WEIGHTS_IR = 4  # before, every initializer had to be an input as well, which nobody could feed
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_OUTPUT = 7, 1, 5, 12


class OnnxTensors(LazyTensors):
    """Little-endian arrays from mapped files: read-only views of raw data, copies of data in typed fields.

    Views need not be aligned. Asking for a tensor gives the pages of the ones before back to the system.
    """

    def __init__(
        self,
        mapped: MappedFile,
        stored: Mapping[str, StoredTensor],
        external: Mapping[str, tuple[MappedFile, int]],
        loose: Mapping[str, onnx.TensorProto],
    ) -> None:
        self._loose = loose
        self._mapped = mapped
        self._stored = stored
        self._external = external
        self._files = {mapped, *(file for file, _ in external.values())}

    def __len__(self) -> int:
        return len(self._stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def _make(self, name: str) -> Array:
        """One tensor.

        Raises:
            InputError: Its data are damaged.
        """
        tensor = self._stored[name]
        # the tensor before is no longer needed: its pages would add up to the whole file
        for file in self._files:
            file.forget_pages()

        if name in self._external:
            file, start = self._external[name]
            return _view(file.data, start, tensor.spec)
        if tensor.raw is not None:
            return _view(self._mapped.data, tensor.raw[0], tensor.spec)
        if name in self._loose:
            return _array_of(self._loose[name], tensor)

        return _typed_array(self._mapped.data, tensor)

    def _spec(self, name: str) -> TensorSpec:
        return self._stored[name].spec

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return [file.path for file in self._files]

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(map(len, self._files))


@dataclass(frozen=True, repr=False)
class OnnxSource(Shown):
    """An open ONNX file.

    Attributes:
        graph: The model with an empty initializer list, its nodes in order; big `Constant` nodes have become tensors,
            those of nested graphs too, and small initializers of nested graphs `Constant` nodes.
        tensors: Every initializer, then every big constant, in file order, then those of nested graphs.
    """

    graph: onnx.ModelProto
    tensors: OnnxTensors

    def summary(self) -> Facts:
        """What there is to say in a few lines."""
        return {"graph": f"{len(self.graph.graph.node)} nodes", "tensors": repr(self.tensors)}


def open_onnx(path: Path, *, allow_external_data: bool = False) -> OnnxSource:
    """Find the weights of an ONNX file.

    Args:
        path: The file.
        allow_external_data: Follow tensors into other files of the same folder.

    Raises:
        InputError: The file cannot be read, is no ONNX model, is damaged, or needs what is not supported.
        ModelError: A tensor has an element type that cannot be packed.
    """
    path = Path(path)
    mapped = MappedFile(path)
    with _named(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # protobuf warns before it raises
        graph, stored, loose = _split(mapped.data)
        external = _external_places(stored, path.parent, allowed=allow_external_data)
        return OnnxSource(graph, OnnxTensors(mapped, stored, external, loose))


def check_size_of_graph(path: Path) -> None:
    """Refuse an ONNX file whose graph comes to too many nodes, without loading its weights.

    Raises:
        InputError: It cannot be read, or is no ONNX model.
        ModelError: There are too many nodes.
    """
    mapped = MappedFile(path)
    with _named(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # protobuf warns before it raises
        model, graphs = parse_shell(
            mapped.data, 0, len(mapped), onnx.ModelProto, is_bulky=lambda field: field.number == _MODEL_GRAPH
        )
        for field in graphs[-1:]:
            _check_counts(mapped.data, field)
            graph, _ = parse_shell(
                mapped.data, field.payload, field.end, onnx.GraphProto, is_bulky=_is_initializer
            )
            model.graph.CopyFrom(graph)
        check_bounds(model)


def _split(
    data: memoryview,
) -> tuple[onnx.ModelProto, dict[str, StoredTensor], dict[str, onnx.TensorProto]]:
    """The graph without weights, where the weights are, and those that lay deep inside the graph."""
    model, graphs = parse_shell(
        data, 0, len(data), onnx.ModelProto, is_bulky=lambda field: field.number == _MODEL_GRAPH
    )
    if len(graphs) != 1 or graphs[0].wire_type != LENGTH_DELIMITED:
        raise InputError(f"{len(graphs)} graphs; expected an ONNX model with one")

    _check_counts(data, graphs[0])

    constants = _big_constants(data, graphs[0])
    graph, bulky = parse_shell(
        data,
        graphs[0].payload,
        graphs[0].end,
        onnx.GraphProto,
        is_bulky=lambda field: field.start in constants or _is_initializer(field),
    )
    model.graph.CopyFrom(graph)
    check_bounds(model)
    _check_supported(model)
    initializers = [scan_tensor(data, field.payload, field.end) for field in bulky if _is_initializer(field)]
    stay = [tensor for tensor in initializers if tensor.spec.onnx_type in STAY_IN_GRAPH]
    _keep_in_graph(model.graph, data, stay)
    named = _by_name([*(tensor for tensor in initializers if tensor not in stay), *constants.values()])

    _free_of_old_rules(model.graph if model.ir_version < _SEPARATE_WEIGHTS_IR else None, named)
    model.ir_version = max(model.ir_version, _SEPARATE_WEIGHTS_IR)
    sort_nodes(model)
    loose = lift_constants(model, taken=set(named), larger_than=MAX_CONSTANT_ELEMENTS)
    named |= {tensor.name: _stored(tensor) for tensor in loose}

    return model, named, {tensor.name: tensor for tensor in loose}


def _keep_in_graph(graph: onnx.GraphProto, data: memoryview, tensors: list[StoredTensor]) -> None:
    """Make `Constant` nodes of tensors whose elements are texts or complex numbers.

    Raises:
        InputError: A caller may feed another value, or it lies in another file.
    """
    inputs = {value.name for value in graph.input}
    for tensor in tensors:
        if tensor.name in inputs or tensor.external is not None:
            raise InputError(
                f"{tensor.name}: texts and complex numbers are kept in the graph; "
                "take the tensor out of the inputs, and store it in the model's own file"
            )
        start, end = tensor.message
        value = onnx.TensorProto.FromString(bytes(data[start:end]))
        graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=value))


def _free_of_old_rules(graph: onnx.GraphProto | None, tensors: Mapping[str, StoredTensor]) -> None:
    """Take the tensors of an old model out of its inputs, where old rules put them and nobody could feed them."""
    if graph is None:
        return
    inputs = [value for value in graph.input if value.name not in tensors]
    del graph.input[:]
    graph.input.extend(inputs)


def _stored(tensor: onnx.TensorProto) -> StoredTensor:
    return StoredTensor(tensor.name, TensorSpec(tuple(tensor.dims), tensor.data_type), (0, 0), None, None)


def _check_counts(data: memoryview, graph: Field) -> None:
    """Refuse more nodes or tensors than can be packed, before any of them is looked at.

    Raises:
        InputError: There are more.
    """
    left = {_GRAPH_NODE: (MAX_NODES, "nodes"), _GRAPH_INITIALIZER: (MAX_TENSORS, "tensors")}
    seen = dict.fromkeys(left, 0)
    for field in fields(data, graph.payload, graph.end):
        if field.number in seen:
            seen[field.number] += 1
            most, what = left[field.number]
            if seen[field.number] > most:
                raise InputError(f"the graph has more than {most:,} {what}")


def _big_constants(data: memoryview, graph: Field) -> dict[int, StoredTensor]:
    """The `Constant` nodes that become tensors, by the place of the node: not those that are outputs of the graph."""
    header, nodes = parse_shell(
        data, graph.payload, graph.end, onnx.GraphProto, is_bulky=lambda field: field.number != _GRAPH_OUTPUT
    )
    outputs = {output.name for output in header.output}
    found = (
        (node.start, scan_constant(data, node))
        for node in nodes
        if node.number == _GRAPH_NODE
        and node.wire_type == LENGTH_DELIMITED
        and node.end - node.payload >= _MIN_CONSTANT_BYTES
    )

    return {start: tensor for start, tensor in found if tensor is not None and _is_movable(tensor, outputs)}


def _is_movable(constant: StoredTensor, outputs: set[str]) -> bool:
    big = constant.spec.size > MAX_CONSTANT_ELEMENTS or constant.external is not None
    return big and constant.spec.onnx_type in DTYPES and constant.name not in outputs


def _is_initializer(field: Field) -> bool:
    return field.number == _GRAPH_INITIALIZER and field.wire_type == LENGTH_DELIMITED


def _check_supported(model: onnx.ModelProto) -> None:
    """Refuse what cannot be packed, and give the initializers of nested graphs a place that can."""
    for where, graph in graphs_of(model):
        if len(graph.sparse_initializer):
            raise InputError(f"{where} holds sparse initializers; store them as dense ones")
        initializers_to_constants(where, graph)
    if has_external_data(model):
        raise InputError("a constant inside a node lies in another file; store the model in one file")


def _by_name(tensors: list[StoredTensor]) -> dict[str, StoredTensor]:
    named: dict[str, StoredTensor] = {}
    for tensor in tensors:
        check_type(tensor)
        if tensor.name in named:
            raise InputError(f"two tensors are called {tensor.name!r}")
        named[tensor.name] = tensor

    return named


def _external_places(
    stored: Mapping[str, StoredTensor], folder: Path, *, allowed: bool
) -> dict[str, tuple[MappedFile, int]]:
    """File and offset of every tensor that lies in another file."""
    files: dict[Path, MappedFile] = {}
    places = {}
    for name, tensor in stored.items():
        if tensor.external is None:
            continue
        if not allowed:
            raise InputError(
                f"{name}: its data lie in another file; pass --allow-external-data to follow it, "
                "or store the model in one file"
            )

        path = external_file(name, tensor.external, folder)
        if path not in files:
            files[path] = MappedFile(path)

        file = files[path]
        start = external_range(name, tensor.external, n_bytes=tensor.spec.n_raw_bytes, file_bytes=len(file))
        places[name] = file, start

    return places


def _view(data: memoryview, start: int, spec: TensorSpec) -> Array:
    if not spec.size:
        return np.empty(spec.shape, DTYPES[spec.onnx_type])
    return array_of_raw(data[start : start + spec.n_raw_bytes], spec)


def _typed_array(data: memoryview, tensor: StoredTensor) -> Array:
    """The values of typed fields; the message is parsed for that.

    Raises:
        InputError: Their number does not fit the shape, or they do not fit the type.
    """
    start, end = tensor.message
    try:
        message = onnx.TensorProto.FromString(bytes(data[start:end]))
    except DecodeError as error:
        raise InputError(f"{tensor.name}: tensor data are damaged: {error}") from error
    return _array_of(message, tensor)


def _array_of(message: onnx.TensorProto, tensor: StoredTensor) -> Array:
    """The values of a parsed message.

    Raises:
        InputError: Their number does not fit the shape, or they do not fit the type.
    """
    try:
        array = numpy_helper.to_array(message)
    except Exception as error:  # onnx raises whatever its parts raise on damaged data
        raise InputError(f"{tensor.name}: tensor data are damaged: {error}") from error

    array = np.ascontiguousarray(array, DTYPES[tensor.spec.onnx_type]).reshape(tensor.spec.shape)
    return of_carrier(
        carrier_of(array), tensor.spec.onnx_type
    )  # of few bits, the rest of a byte is made to fit


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the file before what is wrong with it."""
    try:
        yield
    except (InputError, ModelError) as error:
        raise type(error)(f"{path}: {error}") from error
