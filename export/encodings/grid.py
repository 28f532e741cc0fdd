"""The quantization grid at the start of every quantized blob, and the symbols that the codes become.

See FORMAT.md, "Quantized blobs".
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from export.byte_parts import PartReader, PartWriter
from export.encodings.spec import TensorSpec
from export.errors import DamagedArtifact, ModelError
from export.quantized import FloatArray, QuantizedTensor, code_range

_OFFSET, _SUPPORT, _PER_CHANNEL, _CHANNEL_SCALE = 1, 2, 4, 8
_ALL_FLAGS = 15


@dataclass(frozen=True)
class Grid:
    """Everything of a `QuantizedTensor` but its codes.

    Attributes:
        spec: Shape and type of the tensor.
        has_support: Whether exact zeros have a symbol of their own.
    """

    spec: TensorSpec
    bits: int
    scale: FloatArray
    offset: FloatArray | None
    channel_scale: FloatArray | None
    has_support: bool

    @property
    def lowest_code(self) -> int:
        """The code that symbol 0 (or 1, beside a zero symbol) stands for."""
        return code_range(bits=self.bits, signed=self.offset is None)[0]

    @property
    def n_codes(self) -> int:
        """Number of different codes."""
        low, high = code_range(bits=self.bits, signed=self.offset is None)
        return high - low + 1

    @property
    def n_symbols(self) -> int:
        """Number of dense symbols: the codes, and one more for exact zeros where they have their own."""
        return self.n_codes + self.has_support

    @property
    def has_zeros(self) -> bool:
        """Whether this grid has an exact zero at all."""
        return self.has_support or self.offset is None

    def tensor(
        self, codes: npt.NDArray[np.integer], support: npt.NDArray[np.bool_] | None
    ) -> QuantizedTensor:
        """Codes of the decoded type, in shape."""
        dtype = np.int8 if self.offset is None else np.uint8
        try:
            return QuantizedTensor(
                codes.astype(dtype).reshape(self.spec.shape),
                bits=self.bits,
                scale=self.scale,
                offset=self.offset,
                support=support.reshape(self.spec.shape) if support is not None else None,
                channel_scale=self.channel_scale,
            )
        except ModelError as error:
            raise DamagedArtifact(str(error)) from error


def write_grid(writer: PartWriter, tensor: QuantizedTensor) -> Grid:
    """Write bits, flags and scales; returns the grid for the encoding's own use."""
    scale = np.asarray(tensor.scale, np.float32)
    offset = None if tensor.offset is None else np.asarray(tensor.offset, np.float32)
    flags = (
        _OFFSET * (offset is not None)
        | _SUPPORT * (tensor.support is not None)
        | _PER_CHANNEL * (scale.ndim == 1)
        | _CHANNEL_SCALE * (tensor.channel_scale is not None)
    )
    writer.add("header", bytes([tensor.bits, flags]))
    for parameter in (scale, offset, tensor.channel_scale):
        if parameter is not None:
            writer.add("scales", parameter.astype("<f4").tobytes())
    spec = TensorSpec(tensor.shape, onnx.TensorProto.FLOAT)
    return Grid(spec, tensor.bits, scale, offset, tensor.channel_scale, tensor.support is not None)


def read_grid(reader: PartReader, spec: TensorSpec) -> Grid:
    """Undo `write_grid`.

    Raises:
        DamagedArtifact: Unknown flags, a bit width out of range, a 0-d shape, or a type other than float32.
    """
    bits, flags = reader.unpack("BB")
    if spec.onnx_type != onnx.TensorProto.FLOAT or not spec.shape:
        raise DamagedArtifact("a quantized tensor must be float32 with at least one axis")
    if flags & ~_ALL_FLAGS or (flags & _SUPPORT and not flags & _OFFSET):
        raise DamagedArtifact(f"quantization flags {flags:#04x} are not defined")
    try:
        code_range(bits=bits, signed=True)
    except ModelError as error:
        raise DamagedArtifact(str(error)) from error
    shape = (spec.shape[0],) if flags & _PER_CHANNEL else ()
    scale = _read_floats(reader, shape)
    offset = _read_floats(reader, shape) if flags & _OFFSET else None
    channel_scale = _read_floats(reader, (spec.shape[0],)) if flags & _CHANNEL_SCALE else None
    return Grid(spec, bits, scale, offset, channel_scale, bool(flags & _SUPPORT))


def symbols_from_codes(grid: Grid, tensor: QuantizedTensor) -> npt.NDArray[np.int64]:
    """Dense symbols ``0 .. n_symbols - 1``, flat; with a zero symbol, that is 0 and codes follow."""
    symbols = tensor.codes.astype(np.int64) - grid.lowest_code
    if tensor.support is not None:
        symbols = np.where(tensor.support, symbols + 1, 0)
    return symbols.ravel()


def tensor_from_symbols(grid: Grid, symbols: npt.NDArray[np.integer]) -> QuantizedTensor:
    """Undo `symbols_from_codes`.

    Raises:
        DamagedArtifact: A symbol is outside the alphabet.
    """
    if symbols.size and int(symbols.max()) >= grid.n_symbols:
        raise DamagedArtifact(f"symbol {int(symbols.max())} is outside 0..{grid.n_symbols - 1}")
    if not grid.has_support:
        return grid.tensor(symbols + grid.lowest_code, None)
    support = symbols > 0
    return grid.tensor(np.where(support, symbols - 1 + grid.lowest_code, 0), support)


def _read_floats(reader: PartReader, shape: tuple[int, ...]) -> FloatArray:
    count = shape[0] if shape else 1
    data = np.frombuffer(reader.take("scales", 4 * count), "<f4")
    return data.astype(np.float32).reshape(shape)
