"""The judge: the product and the reference must accept the same files, and read the same from them."""

import io
import struct
import tracemalloc
from time import process_time

import numpy as np
import onnx

from modelpress.export.errors import ArtifactError
from modelpress.export.press.reading import Artifact
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.tensor_spec import DTYPES
from tests.reference.press_reference import Refused, decode, dequantized

# Of the processor, whatever else the machine does: a bound against decoding without end, far above what is taken.
SECONDS, SECONDS_PER_BYTE = 20.0, 1e-4
SPARE_BYTES = 32 << 20  # the model of mixed contexts takes 24 MB where it is not compiled


def disagreement(data, *, max_decoded_bytes, measure_memory=False, also=None):
    """What is wrong about how the product reads these bytes; None if nothing is.

    `also` says the same of another reader, given the bytes, what the reference makes of them, and the limit.
    """
    return judged(data, max_decoded_bytes=max_decoded_bytes, measure_memory=measure_memory, also=also)[1]


def judged(data, *, max_decoded_bytes, measure_memory=False, also=None):
    """(what the product did, what is wrong about it): ``read``, or the name of the error; None if nothing is wrong."""
    expected = reference_reading(data, max_decoded_bytes)
    if measure_memory:
        tracemalloc.start()

    began = process_time()
    try:
        actual = product_reading(data, max_decoded_bytes)
    except Exception as error:
        return type(error).__name__, f"the product raised {type(error).__name__}: {error}"
    finally:
        seconds = process_time() - began
        peak = tracemalloc.get_traced_memory()[1] if measure_memory else 0
        tracemalloc.stop()

    outcome = type(actual).__name__ if isinstance(actual, ArtifactError) else "read"
    if seconds > SECONDS + SECONDS_PER_BYTE * max_decoded_bytes:
        return outcome, f"the product took {seconds:.1f} s of processor time"
    if peak > 2 * max_decoded_bytes + SPARE_BYTES:
        return outcome, f"the product took {peak:,} bytes"
    wrong = compare(actual, expected)
    return outcome, also(data, expected, max_decoded_bytes) if also and not wrong else wrong


def reference_reading(data, max_decoded_bytes):
    try:
        return decode(data, max_decoded_bytes)
    except Refused as refusal:
        return refusal


def product_reading(data, max_decoded_bytes):
    """Graph and tensors, or the `ArtifactError`."""
    try:
        artifact = Artifact(io.BytesIO(data), max_decoded_bytes=max_decoded_bytes)
        return artifact.graph, [(stored.record, stored.tensor) for stored in artifact.stored()]
    except ArtifactError as error:
        return error


def compare(actual, expected):
    if isinstance(actual, ArtifactError) or isinstance(expected, Refused):
        if isinstance(actual, ArtifactError) and isinstance(expected, Refused):
            return None
        who = "product" if isinstance(actual, ArtifactError) else "reference"
        return f"only the {who} refused: {actual if who == 'product' else expected}"
    graph, tensors = actual
    if graph != onnx.ModelProto.FromString(expected.graph):
        return "graphs differ"
    if len(tensors) != len(expected.tensors):
        return "the numbers of tensors differ"
    pairs = zip(tensors, expected.tensors, strict=True)
    return next(
        (found for (record, ours), theirs in pairs if (found := compare_tensor(record, ours, theirs))), None
    )


def compare_tensor(record, ours, theirs):
    stored = (record.name, record.spec.shape, record.spec.onnx_type, record.encoding)
    if stored != (theirs.name, theirs.shape, theirs.element_type, theirs.encoding):
        return f"{theirs.name}: records differ"
    if isinstance(ours, QuantizedTensor) != (theirs.grid is not None):
        return f"{theirs.name}: quantized only for one"
    facts = quantized_facts(ours, theirs) if theirs.grid is not None else ()
    values = ours.dequantize() if theirs.grid is not None else ours
    if values.shape != theirs.shape or values.dtype != DTYPES[theirs.element_type].newbyteorder("="):
        return f"{theirs.name}: shapes or types differ"
    facts = (*facts, ("values", little_endian(values), dequantized(theirs)))
    return next((f"{theirs.name}: {what} differ" for what, left, right in facts if left != right), None)


def quantized_facts(ours, theirs):
    """(what, the product's, the reference's)."""
    grid = theirs.grid
    return (
        ("bits", ours.bits, grid.bits),
        ("channel axes", ours.channel_axis, grid.axis),
        ("codes", ours.codes.reshape(-1).tolist(), [code or 0 for code in theirs.codes]),
        ("supports", None if ours.support is None else ours.support.reshape(-1).tolist(), theirs.support),
        ("kinds of scale", np.ndim(ours.scale), int(grid.per_channel)),
        ("scales", *floats(ours.scale, grid.scale)),
        ("offsets", *floats(ours.offset, grid.offset)),
        ("channel scales", *floats(ours.channel_scale, grid.channel_scale)),
    )


def floats(ours, theirs):
    return (
        None if ours is None else little_endian(np.asarray(ours)),
        None if theirs is None else struct.pack(f"<{len(theirs)}f", *theirs),
    )


def little_endian(array):
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
