"""A small ONNX file as a plain one."""

from pathlib import Path
from typing import Any

from modelpress.export.errors import InputError, ModelError
from modelpress.export.files.atomic import atomic_writer
from modelpress.export.files.kinds import check_ending
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.graphs.source import open_onnx
from modelpress.export.handoff.bundle_files.expand import expand
from modelpress.export.quantized import dense_array

_MAX_PROTOBUF = 2**31 - 1


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
    model = with_initializers(opened.graph, {name: dense_array(t) for name, t in opened.tensors.items()})
    n_nodes = expand(model)
    if not n_nodes:
        raise InputError(
            f"{source}: nothing in it is computed from constants; its weights are plain already. --expand is for "
            "files of flavour weight-only, sparse or int8-sparse"
        )

    size = model.ByteSize()
    if size > _MAX_PROTOBUF:
        raise ModelError(f"{source}: expanded it takes {size:,} bytes; an ONNX file holds 2 GiB at most")
    with atomic_writer(target) as file:
        file.write(model.SerializeToString())

    return {"output": str(target), "size_bytes": target.stat().st_size, "nodes": n_nodes}
