"""Every way in which a tensor can be written, whatever the writer would choose."""

import numpy as np

from modelpress.export.coding.byte_parts import PartWriter
from modelpress.export.files.blocks import is_finite
from modelpress.export.press.encodings import (
    HUFFMAN_IDS,
    byte_planes,
    coded_planes,
    half,
    huffman_blob,
    lzma_elements,
    mixed_contexts,
    packed,
    raw,
)
from modelpress.export.press.encodings.bitmap import BitmapCoder
from modelpress.export.press.encodings.dense import DenseCoder
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.encodings.huffman_blob import NO_SHARED
from modelpress.export.press.encodings.kernels.kernel_mask import KernelMaskCoder
from modelpress.export.press.encodings.kernels.sign_rows import SignRowCoder
from modelpress.export.press.encodings.levels import source_of
from modelpress.export.press.encodings.split import blob as split
from modelpress.export.quantized import QuantizedTensor, Tensor
from modelpress.export.tensor_spec import carrier_of

Ways = dict[str, tuple[int, PartWriter]]


def every_way(tensor: Tensor) -> Ways:
    """Encoding id and blob, by a name that is unique among variants."""
    return _quantized(tensor) if isinstance(tensor, QuantizedTensor) else _array(tensor)


def _quantized(tensor: QuantizedTensor) -> Ways:
    ways: Ways = {
        "packed": (5, packed.encode(tensor)),
        "mixed": (10, mixed_contexts.encode(tensor, FileState())),
        "linked": (20, mixed_contexts.encode(tensor, FileState(), linked=True)),
    }
    for kind, number in HUFFMAN_IDS.items():
        for coder in kind.candidates(tensor.spec, source_of(tensor).bounds):
            plan = huffman_blob.survey(tensor, [coder])[0]
            blob = huffman_blob.write(tensor, plan, NO_SHARED)
            ways[f"{kind.__name__} {coder.parameters().hex()}"] = number, blob
    return ways


def _split(source: split.SplitSource) -> Ways:
    kind = type(source.kind).__name__
    ways: Ways = {f"{kind}, packed": (14, split.encode_packed(source))}
    if mixed_contexts.holds(source.spec):
        ways[f"{kind}, mixed"] = 15, split.encode_mixed(source, FileState())
        ways[f"{kind}, linked"] = 21, split.encode_mixed(source, FileState(), linked=True)
    for coder_kind in (DenseCoder, BitmapCoder, KernelMaskCoder, SignRowCoder):
        for coder in coder_kind.candidates(source.spec, source.bounds)[:1]:
            plan = huffman_blob.survey(source, [coder])[0]
            ways[f"{kind}, {coder_kind.__name__}"] = 14, split.encode_huffman(source, plan, NO_SHARED)
    return ways


def _array(array: np.ndarray) -> Ways:
    numbers = carrier_of(array)
    ways: Ways = {
        "raw": (0, raw.encode(numbers)),
        "coded planes": (13, coded_planes.encode(numbers, coded_planes.survey(numbers))),
    }
    planes = byte_planes.encode(numbers)
    if planes is not None:
        ways["byte planes"] = 4, planes
    if not is_finite(array):
        ways = {}
    ways["lzma"] = 18, lzma_elements.encode(numbers)
    if array.dtype.kind != "b":
        ways["any bits"] = 16, raw.encode(numbers)
    for source in split.sources_of(array):
        ways |= _split(source)
    if half.fits_float16(array):
        ways["float16"] = 11, half.encode_float16(array)
    if half.fits_bfloat16(array):
        ways["bfloat16"] = 12, half.encode_bfloat16(array)
    return ways
