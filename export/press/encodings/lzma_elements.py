"""Encoding 18: the elements as they are, as an LZMA stream; for tensors that repeat themselves, such as indices."""

import numpy as np
import numpy.typing as npt

from modelpress.export.coding import lzma_stream
from modelpress.export.coding.byte_parts import PartReader, PartWriter
from modelpress.export.press.encodings import raw
from modelpress.export.tensor_spec import TensorSpec

# Properties by the bytes of an element: three bits of the byte before as context, or the place in the element
_CANDIDATES = {1: (3, 0), 2: (3 + 45, 9 + 45), 4: (3 + 90, 18 + 90), 8: (3 + 90, 27 + 135)}


def encode(array: npt.NDArray[np.generic]) -> PartWriter:
    """Properties and stream, the best of two."""
    data = raw.little_endian(array)
    properties, stream = lzma_stream.smallest(data, _CANDIDATES[array.dtype.itemsize])
    return PartWriter().add("header", bytes([properties])).add("payload", stream)


def decode(reader: PartReader, spec: TensorSpec) -> npt.NDArray[np.generic]:
    """Undo `encode`; any floats, infinities and NaN too.

    Raises:
        DamagedArtifact: The stream is damaged or gives another number of bytes; never more than that is produced.
    """
    (properties,) = reader.unpack("B")
    data = lzma_stream.decompress(reader.rest("payload"), spec.n_bytes, properties, what="payload")
    return raw.array_of_any_bits(data, spec)
