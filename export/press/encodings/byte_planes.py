"""Encoding 4: byte planes, deflated; for floats that are kept as they are.

Neighbouring floats share sign and exponent bits but not the low bits of the mantissa. Written plane by plane
(all first bytes, then all second bytes, …) the former compress and the latter do no harm.
"""

import zlib

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.coding.byte_parts import PartReader, PartWriter
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings import raw
from modelpress.export.tensor_spec import CARRIERS, TensorSpec


def encode(array: npt.NDArray[np.generic]) -> PartWriter | None:
    """A zlib stream of the planes; None for booleans."""
    if array.dtype.kind == "b":
        return None
    elements = np.frombuffer(raw.little_endian(array), np.uint8).reshape(-1, array.dtype.itemsize)
    return PartWriter().add("payload", zlib.compress(elements.T.tobytes(), 9))


def decode(reader: PartReader, spec: TensorSpec) -> npt.NDArray[np.generic]:
    """Undo `encode`.

    Raises:
        DamagedArtifact: The stream is damaged or inflates to another size; never more than that is produced.
    """
    if spec.onnx_type == onnx.TensorProto.BOOL:
        raise DamagedArtifact("booleans have no byte planes")

    inflater = zlib.decompressobj()
    try:
        # one byte more than is right, so that too many are noticed, and no more are ever made
        planes = inflater.decompress(reader.rest("payload"), spec.n_bytes + 1)
    except zlib.error as error:
        raise DamagedArtifact(f"byte planes cannot be inflated: {error}") from error

    if len(planes) != spec.n_bytes or not inflater.eof or inflater.unused_data:
        raise DamagedArtifact(f"byte planes do not inflate to {spec.n_bytes:,} bytes")

    itemsize = CARRIERS[spec.onnx_type].itemsize
    elements = np.frombuffer(planes, np.uint8).reshape(itemsize, -1).T
    values = np.ascontiguousarray(elements).reshape(-1).view(CARRIERS[spec.onnx_type])

    return raw.check_values(values.reshape(spec.shape))
