"""A small ONNX file as a plain one."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from modelpress.export.errors import InputError, ModelError
from modelpress.export.files.atomic import atomic_writer
from modelpress.export.files.kinds import check_ending
from modelpress.export.graphs.check import check_graph
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.graphs.source import open_onnx
from modelpress.export.handoff.bundle_files.expand import expand
from modelpress.export.isolation.foreign import run_foreign
from modelpress.export.isolation.messages import Array, Facts
from modelpress.export.quantized import QuantizedModel, dense_array

_MAX_PROTOBUF = 2**31 - 1
_MEMORY_BYTES = (
    8 << 30
)  # expanding takes some thirty bytes for each weight of a stream, and the plain model twice


def expand_onnx(source: Path, target: Path) -> dict[str, Any]:
    """Write a file whose weights are constants from one that computes them at load, whole or not at all.

    Args:
        source: An ONNX file of flavour ``weight-only``, ``sparse`` or ``int8-sparse``.
        target: The file to write.

    Returns:
        Its size, and how many nodes were computed.

    Raises:
        InputError: The file cannot be read or is damaged, or nothing in it is computed from constants.
        ModelError: The plain model would exceed 2 GiB.
    """
    check_ending(target, "an ONNX model", (".onnx",))
    opened = open_onnx(source)
    check_graph(QuantizedModel(opened.graph, opened.tensors))
    packed = with_initializers(opened.graph, {name: dense_array(t) for name, t in opened.tensors.items()})
    data = np.frombuffer(packed.SerializeToString(), np.uint8)
    # a stranger's nodes may ask for any amount of memory
    found, (plain,) = run_foreign(_expand_job, {}, [data], memory_bytes=_MEMORY_BYTES)
    if not found["nodes"]:
        raise InputError(
            f"{source}: nothing in it is computed from constants; its weights are plain already. --expand is for "
            "files of flavour weight-only, sparse or int8-sparse"
        )

    with atomic_writer(target) as file:
        file.write(plain.tobytes())
    return {"output": str(target), "size_bytes": plain.size, "nodes": found["nodes"]}


def _expand_job(facts: Facts, arrays: list[Array]) -> tuple[Facts, list[Array]]:
    """Expand a serialised model.

    Raises:
        ModelError: It would exceed 2 GiB.
    """
    model = onnx.load_from_string(arrays[0].tobytes())
    n_nodes = expand(model)
    if model.ByteSize() > _MAX_PROTOBUF:
        raise ModelError(f"expanded it takes {model.ByteSize():,} bytes; an ONNX file holds 2 GiB at most")
    return {"nodes": n_nodes}, [np.frombuffer(model.SerializeToString(), np.uint8)]
