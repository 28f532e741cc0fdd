"""A small artifact decoded in one call of the compiled codes, without onnx: for who wants to run it and no more.

A process that does little else spends most of its time on imports. What is not read here, or is refused, is read again
by `modelpress.export.press.reading`, which tells what is wrong.
"""

import sys
from pathlib import Path

from modelpress.export.coding.core import core
from modelpress.export.errors import InputError
from modelpress.export.files.inputs import read_input
from modelpress.export.graphs.conventions import EXITS_METADATA, MAX_NODES
from modelpress.export.graphs.protobuf_wire import MODEL_FUNCTION, fields

# of the file, and of its tensors; more takes longer than imports, and is decoded in parallel
_MOST_BYTES = 1 << 24
_LEAST_NODE = 2  # bytes of a node in a graph: a tag and a length
_FEW_BITS = frozenset({21, 22, 23, 25, 26})  # ONNX types of less than a byte, which ONNX packs

Tensor = tuple[str, int, tuple[int, ...], bytearray]


def read_at_once(path: Path, *, max_decoded_bytes: int) -> tuple[bytes, list[Tensor]] | None:
    """The serialised graph, and name, ONNX type, shape and little-endian elements of every tensor.

    Args:
        path: Of the artifact.
        max_decoded_bytes: Leave files alone whose tensors are larger in memory.

    Returns:
        None where the file must be read otherwise: it is large, damaged, has early exits, or nothing is compiled.
    """
    codes = core()
    if codes is None or sys.byteorder != "little":
        return None
    try:
        data = b"" if path.stat().st_size > _MOST_BYTES else read_input(path)
    except (InputError, OSError, ValueError):
        return None

    found = codes.read_file(data, min(max_decoded_bytes, _MOST_BYTES))
    if found is None or not _is_plain(found[0]) or not all(map(_is_known, found[1])):
        return None
    return found


def _is_plain(graph: bytes) -> bool:
    """Whether nothing that the reader in C does not look at needs to be looked at: early exits, and how many nodes."""
    if EXITS_METADATA.encode() in graph or len(graph) > _LEAST_NODE * MAX_NODES:
        return False
    try:
        return all(field.number != MODEL_FUNCTION for field in fields(memoryview(graph), 0, len(graph)))
    except InputError:  # groups, which no exporter writes
        return False


def _is_known(tensor: Tensor) -> bool:
    """Whether the elements are as ONNX stores them, and the name is one whose other spellings C knows."""
    name, onnx_type, _, _ = tensor
    return onnx_type not in _FEW_BITS and name.isascii()
