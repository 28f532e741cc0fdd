"""A `QuantizedModel` written as a `.press` file, tensor by tensor, as specified in FORMAT.md."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from modelpress.export.choices import Effort
from modelpress.export.errors import ModelError
from modelpress.export.files.atomic import atomic_writer
from modelpress.export.graphs.bounds import check_bounds
from modelpress.export.graphs.parts import check_self_contained
from modelpress.export.press.directory import (
    TensorRecord,
    check_names,
    pack_directory,
)
from modelpress.export.press.encodings import ENCODINGS
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.frame import (
    CHUNK,
    DATA,
    HEADER,
    LEAST_MINOR,
    MAX_DIRECTORY_BYTES,
    MAX_GRAPH_BYTES,
    META,
    SQUEEZED,
    check_length,
    pack_meta,
    seal,
)
from modelpress.export.press.plan import Plan, plan_file
from modelpress.export.press.reading import Artifact
from modelpress.export.press.shared_tables import MINOR as SQUEEZED_MINOR
from modelpress.export.press.shared_tables import pack_tables
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor, tensors_equal
from modelpress.export.tensor_spec import MAX_DIMENSIONS, MAX_ELEMENTS, MAX_TENSORS, ONNX_TYPES, TensorSpec

PASSES = 3  # how often `write_artifact` reports each tensor: counted, written, compared
OnTensor = Callable[[str], None]


def write_artifact(
    path: Path, model: QuantizedModel, *, effort: Effort = "default", on_tensor: OnTensor | None = None
) -> int:
    """Pack a model into a file; returns its size in bytes.

    Tensors are asked for one at a time: two or three times each, once more to compare the packed bytes,
    decoded, with the model before the file appears.

    Args:
        path: Of the new file.
        model: What to pack.
        effort: ``fast``, ``default`` or ``max``, see `modelpress.export.press.plan`.
        on_tensor: Called with a tensor's name whenever one of `passes` is done with it.

    Raises:
        ModelError: The model holds something that cannot be packed.
        InputError: The file cannot be written.
    """
    with atomic_writer(path) as file:  # which appears only if it decodes to what was packed
        return write_checked(file, model, effort=effort, on_tensor=on_tensor)


def write_checked(
    file: IO[bytes], model: QuantizedModel, *, effort: Effort = "default", on_tensor: OnTensor | None = None
) -> int:
    """Pack a model into an open file, decode that and compare, tensor by tensor; returns its size in bytes.

    Args:
        file: Empty; to write, read and seek in.
        model: As for `write_artifact`, as are the others.
        effort: As there.
        on_tensor: As there.

    Raises:
        ModelError: The model holds something that cannot be packed, or does not come back.
    """
    size = _write(file, model, effort, on_tensor)
    packed = Artifact(file, max_decoded_bytes=sys.maxsize)  # no limit, for it is our own
    for stored in packed.stored():
        name = stored.record.name
        if not tensors_equal(stored.tensor, model.tensors[name]):
            raise ModelError(f"{name} does not decode to what was packed")
        if on_tensor is not None:
            on_tensor(name)

    if packed.graph != model.graph:
        raise ModelError("the graph does not decode to what was packed")
    return size


def encode_artifact(model: QuantizedModel, *, effort: Effort = "default") -> bytes:
    """Bytes of a model; the same model gives the same bytes.

    Raises:
        ModelError: A tensor has a name, shape, type or value that cannot be packed.
    """
    file = io.BytesIO()
    _write(file, model, effort, None)
    return file.getvalue()


def _write(file: IO[bytes], model: QuantizedModel, effort: Effort, on_tensor: OnTensor | None) -> int:
    """Data first: the other chunks are known when all tensors are written."""
    check_names(model.tensors)
    check_bounds(model.graph)
    check_self_contained(model.graph)
    if len(model.tensors) > MAX_TENSORS:
        raise ModelError(f"{len(model.tensors):,} tensors; the limit is {MAX_TENSORS:,}")

    graph = model.graph.SerializeToString(deterministic=True)
    check_length("graph", graph, MAX_GRAPH_BYTES)
    plan = plan_file(model.tensors, effort, on_tensor=on_tensor)
    file.write(bytes(HEADER.size + CHUNK.size))  # filled in at the end

    records = []
    for record, blob in _blobs(model, plan):
        file.write(blob)
        records.append(record)
        if on_tensor is not None:
            on_tensor(record.name)

    n_data = file.tell() - HEADER.size - CHUNK.size
    directory = pack_directory(records)
    check_length("tensor directory", directory, MAX_DIRECTORY_BYTES)
    chunks = [(META, pack_meta(directory, graph))]
    if plan.choice.groups:
        chunks.insert(0, pack_tables(plan.choice.groups))

    for kind, payload in chunks:
        file.write(CHUNK.pack(kind, len(payload)) + payload)

    file.seek(HEADER.size)
    file.write(CHUNK.pack(DATA, n_data))
    minors = [ENCODINGS[record.encoding].minor for record in records]
    minors += [SQUEEZED_MINOR for kind, _ in chunks if kind == SQUEEZED]
    return seal(file, 1 + len(chunks), minor=max(minors, default=LEAST_MINOR))


def _blobs(model: QuantizedModel, plan: Plan) -> Iterator[tuple[TensorRecord, bytes]]:
    state = FileState(tuple(plan.choice.groups))
    for name, tensor in model.tensors.items():
        spec = _checked_spec(name, tensor)
        encoding, writer = plan.encode(name, tensor, state)
        blob = writer.data()
        yield TensorRecord(name, spec, encoding, None, len(blob)), blob


def _checked_spec(name: str, tensor: Tensor) -> TensorSpec:
    """Shape and type of a tensor that can be packed.

    Raises:
        ModelError: It cannot.
    """
    if isinstance(tensor, QuantizedTensor):
        spec = tensor.spec
    else:
        _check_array(name, tensor)
        spec = TensorSpec(tuple(map(int, tensor.shape)), ONNX_TYPES[tensor.dtype.newbyteorder("<")])

    if spec.exceeds_limits():
        raise ModelError(
            f"{name}: shape {spec.shape} exceeds {MAX_DIMENSIONS} axes or {MAX_ELEMENTS:,} elements"
        )
    return spec


def _check_array(name: str, array: npt.NDArray[np.generic]) -> None:
    if array.dtype.newbyteorder("<") not in ONNX_TYPES:
        raise ModelError(
            f"{name}: type {array.dtype} cannot be packed; expected a float, integer or boolean type"
        )
