"""An ONNX file written tensor by tensor, in the memory of one tensor: the bytes that onnx would write.

A model beyond protobuf's limit becomes two files: the graph, and the values of its large tensors one after the other
(https://onnx.ai/onnx/repo-docs/ExternalData.html).
"""

from collections.abc import Mapping
from typing import IO

import numpy as np
import onnx
from onnx import TensorProto

from modelpress.export.errors import ModelError
from modelpress.export.graphs.protobuf_wire import (
    GRAPH_INITIALIZER,
    MODEL_GRAPH,
    TENSOR_RAW_DATA,
    Field,
    fields,
    length_prefix,
    tensor_header,
)
from modelpress.export.lazy_tensors import spec_of
from modelpress.export.quantized import QuantizedModel, Tensor, dense_array
from modelpress.export.tensor_spec import DTYPES, TensorSpec, raw_bytes

MAX_ONNX_BYTES = (1 << 31) - 1  # protobuf's limit for one message
_INLINE_BYTES = 1024  # of values; smaller tensors stay in the graph's file
_ALIGNMENT = 64
_MOST_HEADER_BYTES = 128  # of a tensor, without its name: 8 axes, type, lengths


def write_onnx_stream(file: IO[bytes], model: QuantizedModel) -> int:
    """Write the model with dense weights; returns the number of bytes.

    The graph is not checked here, see `modelpress.export.graphs.check`. The bytes are those of
    ``with_initializers(...).SerializeToString(deterministic=True)``.

    Args:
        file: Open for writing.
        model: Its tensors are made once each, in order; twice if they are neither lazy nor in memory.

    Raises:
        ModelError: The model is larger than an ONNX file can be, or a tensor is not what was announced.
    """
    specs = {name: spec_of(model.tensors, name) for name in model.tensors}
    headers = {name: _tensor_header(name, spec) for name, spec in specs.items()}
    head, before, after, tail = _split_at_initializers(model.graph.SerializeToString(deterministic=True))
    n_weights = sum(len(headers[name]) + spec.n_raw_bytes for name, spec in specs.items())
    prefix = length_prefix(MODEL_GRAPH, len(before) + n_weights + len(after))

    total = len(head) + len(prefix) + len(before) + n_weights + len(after) + len(tail)
    if total > MAX_ONNX_BYTES:
        raise ModelError(f"the model takes {total:,} bytes; one ONNX file holds up to {MAX_ONNX_BYTES:,}")

    file.write(head + prefix + before)
    for name, spec in specs.items():
        file.write(headers[name])
        file.write(_values_of(model.tensors, name, spec))

    file.write(after + tail)
    return total


def fits_one_file(model: QuantizedModel) -> bool:
    """Whether a model is small enough for `write_onnx_stream`, whatever its names add."""
    n_values = sum(spec_of(model.tensors, name).n_bytes for name in model.tensors)
    n_names = sum(len(name.encode()) + _MOST_HEADER_BYTES for name in model.tensors)
    return n_values + n_names + model.graph.ByteSize() <= MAX_ONNX_BYTES


def write_onnx_with_data(file: IO[bytes], data: IO[bytes], model: QuantizedModel, *, location: str) -> int:
    """Write a model whose large tensors lie in a second file; returns the number of bytes of both.

    Args:
        file: Open for writing: the graph and small tensors, which runtimes read while they build it.
        data: Open for writing: the values of the others, each from a multiple of 64 bytes on.
        model: Its tensors are made once each, in order.
        location: The name of `data`, as the first file tells it.

    Raises:
        ModelError: A tensor is not what was announced.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    place = 0
    for name in model.tensors:
        spec = spec_of(model.tensors, name)
        tensor = graph.graph.initializer.add(dims=spec.shape, data_type=spec.onnx_type, name=name)
        if spec.n_raw_bytes < _INLINE_BYTES:
            tensor.raw_data = bytes(_values_of(model.tensors, name, spec))
            continue

        padding = -place % _ALIGNMENT
        data.write(bytes(padding))
        place += padding
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", place), ("length", spec.n_raw_bytes)):
            tensor.external_data.add(key=key, value=str(value))
        data.write(_values_of(model.tensors, name, spec))
        place += spec.n_raw_bytes

    described = graph.SerializeToString(deterministic=True)
    file.write(described)
    return len(described) + place


def _tensor_header(name: str, spec: TensorSpec) -> bytes:
    """All bytes of an initializer that precede its values."""
    described = tensor_header(name, spec.onnx_type, spec.shape) + length_prefix(
        TENSOR_RAW_DATA, spec.n_raw_bytes
    )
    return length_prefix(GRAPH_INITIALIZER, len(described) + spec.n_raw_bytes) + described


def _split_at_initializers(serialised: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """The bytes before the graph, its fields before and after the initializers, the bytes after the graph.

    Raises:
        ModelError: There is no graph.
    """
    data = memoryview(serialised)
    graphs = [f for f in fields(data, 0, len(data)) if f.number == MODEL_GRAPH]
    if len(graphs) != 1:
        raise ModelError(f"the model has {len(graphs)} graphs; expected 1")

    graph = graphs[0]
    place = _place_of_initializers(data, graph)
    return (
        serialised[: graph.start],
        serialised[graph.payload : place],
        serialised[place : graph.end],
        serialised[graph.end :],
    )


def _place_of_initializers(data: memoryview, graph: Field) -> int:
    """Fields are written in the order of their numbers."""
    later = (f.start for f in fields(data, graph.payload, graph.end) if f.number > GRAPH_INITIALIZER)
    return next(later, graph.end)


def _values_of(tensors: Mapping[str, Tensor], name: str, spec: TensorSpec) -> memoryview:
    """The values of one tensor as they are stored.

    Raises:
        ModelError: It is not what `spec` says.
    """
    array = dense_array(tensors[name])
    values = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    if values.dtype != DTYPES[spec.onnx_type] or array.shape != spec.shape:
        raise ModelError(f"{name}: is {values.dtype} of shape {array.shape}; {spec} was announced")
    return raw_bytes(values)
