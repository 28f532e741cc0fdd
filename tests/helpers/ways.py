"""Every way in which a tensor can be written, whatever the writer would choose."""

import numpy as np

from modelpress.export.coding.byte_parts import PartWriter
from modelpress.export.press.encodings import (
    HUFFMAN_IDS,
    byte_planes,
    coded_planes,
    half,
    huffman_blob,
    mixed_contexts,
    packed,
    raw,
)
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.encodings.huffman_blob import NO_SHARED
from modelpress.export.quantized import QuantizedTensor, Tensor

Ways = dict[str, tuple[int, PartWriter]]


def every_way(tensor: Tensor) -> Ways:
    """Encoding id and blob, by a name that is unique among variants."""
    return _quantized(tensor) if isinstance(tensor, QuantizedTensor) else _array(tensor)


def _quantized(tensor: QuantizedTensor) -> Ways:
    ways: Ways = {
        "packed": (5, packed.encode(tensor)),
        "mixed": (10, mixed_contexts.encode(tensor, FileState())),
    }
    for kind, number in HUFFMAN_IDS.items():
        for coder in kind.candidates(tensor.spec):
            plan = huffman_blob.survey(tensor, [coder])[0]
            blob = huffman_blob.write(tensor, plan, NO_SHARED)
            ways[f"{kind.__name__} {coder.parameters().hex()}"] = number, blob
    return ways


def _array(array: np.ndarray) -> Ways:
    ways: Ways = {
        "raw": (0, raw.encode(array)),
        "coded planes": (13, coded_planes.encode(array, coded_planes.survey(array))),
    }
    planes = byte_planes.encode(array)
    if planes is not None:
        ways["byte planes"] = 4, planes
    if half.fits_float16(array):
        ways["float16"] = 11, half.encode_float16(array)
    if half.fits_bfloat16(array):
        ways["bfloat16"] = 12, half.encode_bfloat16(array)
    return ways
