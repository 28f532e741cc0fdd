"""The quantization grid at the start of every quantized blob: all of a `QuantizedTensor` but its codes.

See FORMAT.md, "Grid".
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.coding.byte_parts import PartReader, PartWriter
from modelpress.export.errors import DamagedArtifact, ModelError
from modelpress.export.files.blocks import blocks
from modelpress.export.grids import code_range
from modelpress.export.quantized import FloatArray, QuantizedTensor
from modelpress.export.tensor_spec import DTYPES, TensorSpec

_OFFSET, _SUPPORT, _PER_CHANNEL, _CHANNEL_SCALE = 1, 2, 4, 8
_HALF_SCALE, _HALF_OFFSET, _HALF_CHANNEL_SCALE = 16, 32, 64
SIGNED_CENTRE = 128
_ALL_FLAGS = 255
_FLAGS_1_0 = 15
_HALF, _SINGLE = np.dtype("<f2"), np.dtype("<f4")
_PLAIN_BELOW = 1e6  # quotients that are far from overflow
QUANTIZED_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


@dataclass(frozen=True)
class StoredGrid:
    """Everything of a `QuantizedTensor` but its codes.

    Attributes:
        spec: Shape and type of the tensor.
        has_support: Whether exact zeros are told apart from all codes.
        signed_centre: Whether the sign of every level is that of its value: the centre is rounded up. Without
            it the code nearest to zero counts as positive, as version 1.1 has it.
    """

    spec: TensorSpec
    bits: int
    scale: FloatArray
    offset: FloatArray | None
    channel_scale: FloatArray | None
    has_support: bool
    channel_axis: int = 0
    signed_centre: bool = False

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code."""
        return code_range(bits=self.bits, signed=self.offset is None)

    @property
    def has_zeros(self) -> bool:
        """Whether this grid has an exact zero at all."""
        return self.has_support or self.offset is None

    def tensor(
        self, codes: npt.NDArray[np.integer], support: npt.NDArray[np.bool_] | None
    ) -> QuantizedTensor:
        """A tensor of codes, in range and 0 outside the support, as whoever decoded them has checked."""
        dtype = np.int8 if self.offset is None else np.uint8
        try:
            return QuantizedTensor.of_checked(
                codes=codes.astype(dtype, copy=False).reshape(self.spec.shape),
                bits=self.bits,
                scale=self.scale,
                offset=self.offset,
                support=support.reshape(self.spec.shape) if support is not None else None,
                channel_scale=self.channel_scale,
                channel_axis=self.channel_axis,
                dtype=DTYPES[self.spec.onnx_type].newbyteorder("="),
            )
        except ModelError as error:
            raise DamagedArtifact(str(error)) from error


def centres(grid: StoredGrid) -> npt.NDArray[np.int16]:
    """The code that levels are counted from, shape of the offset; 0 for symmetric grids.

    The nearest to zero, or with a signed centre the lowest whose value is not negative.
    """
    if grid.offset is None:
        return np.zeros((), np.int16)

    low, high = grid.code_range
    if grid.offset.ndim == 0 and abs(float(grid.offset)) < _PLAIN_BELOW * float(grid.scale):
        quotient = float(np.float32(-grid.offset) / np.float32(grid.scale))
        return np.array(
            min(max(math.ceil(quotient) if grid.signed_centre else round(quotient), low), high), np.int16
        )

    with np.errstate(over="ignore"):  # an infinite quotient is clipped as well
        quotients = -grid.offset / grid.scale
        whole = np.ceil(quotients) if grid.signed_centre else np.rint(quotients)

    return np.asarray(np.clip(whole, low, high), np.int16)


def grid_of(tensor: QuantizedTensor) -> StoredGrid:
    """The grid of a tensor, its centre signed where that makes a difference."""
    grid = StoredGrid(
        tensor.spec,
        tensor.bits,
        np.asarray(tensor.scale, np.float32),
        None if tensor.offset is None else np.asarray(tensor.offset, np.float32),
        tensor.channel_scale,
        tensor.support is not None,
        tensor.channel_axis,
    )
    if not grid.has_support:
        return grid

    signed = replace(grid, signed_centre=True)
    return grid if np.array_equal(centres(signed), centres(grid)) else signed


def write_grid(writer: PartWriter, grid: StoredGrid) -> None:
    """Width and axis, flags, parameters; each parameter in half precision where that loses nothing."""
    flags = (
        _OFFSET * (grid.offset is not None)
        | _SUPPORT * grid.has_support
        | _PER_CHANNEL * (grid.scale.ndim == 1)
        | _CHANNEL_SCALE * (grid.channel_scale is not None)
        | SIGNED_CENTRE * grid.signed_centre
    )

    # flags come first in the file, and depend on whether each parameter fits float16
    parameters = []
    for parameter, half in (
        (grid.scale, _HALF_SCALE),
        (grid.offset, _HALF_OFFSET),
        (grid.channel_scale, _HALF_CHANNEL_SCALE),
    ):
        if parameter is not None:
            is_half = fits_half(parameter)
            flags |= half * is_half
            parameters.append(parameter.astype("<f2" if is_half else "<f4").tobytes())

    writer.add("header", bytes([grid.bits | grid.channel_axis << 4, flags]))
    writer.add("scales", b"".join(parameters))


def grid_bytes(grid: StoredGrid) -> int:
    """Length of the grid as stored."""
    writer = PartWriter()
    write_grid(writer, grid)
    return writer.n_bytes


def fits_half(values: npt.NDArray[np.floating]) -> bool:
    """Whether float16 holds every value exactly, signs of zeros included."""
    with np.errstate(over="ignore"):
        return all(
            block.astype(np.float16).astype(block.dtype).tobytes() == block.tobytes()
            for block in blocks(values)
        )


def read_grid(reader: PartReader, spec: TensorSpec) -> StoredGrid:
    """Undo `write_grid`.

    Raises:
        DamagedArtifact: Unknown flags, a width or axis out of range, a 0-d shape, or a type that is not quantized.
    """
    width_and_axis, flags = reader.unpack("BB")
    return _read_grid(
        reader, spec, bits=width_and_axis & 15, axis=width_and_axis >> 4, flags=flags, all_flags=_ALL_FLAGS
    )


def read_grid_1_0(reader: PartReader, spec: TensorSpec) -> StoredGrid:
    """The grid of the encodings of version 1.0: channels along axis 0, parameters in float32."""
    bits, flags = reader.unpack("BB")
    if spec.onnx_type != onnx.TensorProto.FLOAT:
        raise DamagedArtifact("a quantized tensor must be float32 with at least one axis")
    return _read_grid(reader, spec, bits=bits, axis=0, flags=flags, all_flags=_FLAGS_1_0)


def _read_grid(
    reader: PartReader, spec: TensorSpec, *, bits: int, axis: int, flags: int, all_flags: int
) -> StoredGrid:
    if spec.onnx_type not in QUANTIZED_TYPES or not spec.shape:
        raise DamagedArtifact("a quantized tensor must be float32 or float16 with at least one axis")
    if axis >= len(spec.shape):
        raise DamagedArtifact(f"channel axis {axis} of a tensor with {len(spec.shape)} axes")

    _check_flags(flags, all_flags)
    try:
        code_range(bits=bits, signed=True)
    except ModelError as error:
        raise DamagedArtifact(str(error)) from error

    channels = spec.shape[axis]
    shape = (channels,) if flags & _PER_CHANNEL else ()

    scale = _read_floats(reader, shape, half=bool(flags & _HALF_SCALE))
    if not (scale > 0 if scale.ndim == 0 else (scale > 0).all()):
        raise DamagedArtifact("a scale is not positive")

    offset = _read_floats(reader, shape, half=bool(flags & _HALF_OFFSET)) if flags & _OFFSET else None
    channel_scale = (
        _read_floats(reader, (channels,), half=bool(flags & _HALF_CHANNEL_SCALE))
        if flags & _CHANNEL_SCALE
        else None
    )
    has_support, is_signed = bool(flags & _SUPPORT), bool(flags & SIGNED_CENTRE)
    return StoredGrid(spec, bits, scale, offset, channel_scale, has_support, axis, is_signed)


def _check_flags(flags: int, all_flags: int) -> None:
    """Refuse unknown flags, and flags about what is absent."""
    needs = (
        (_SUPPORT, _OFFSET),
        (_HALF_OFFSET, _OFFSET),
        (_HALF_CHANNEL_SCALE, _CHANNEL_SCALE),
        (SIGNED_CENTRE, _SUPPORT),
    )
    if flags & ~all_flags or any(flags & flag and not flags & needed for flag, needed in needs):
        raise DamagedArtifact(f"quantization flags {flags:#04x} are not defined")


def _read_floats(reader: PartReader, shape: tuple[int, ...], *, half: bool) -> FloatArray:
    dtype = _HALF if half else _SINGLE
    count = shape[0] if shape else 1
    data = np.frombuffer(reader.take("scales", dtype.itemsize * count), dtype)
    if not (math.isfinite(data[0]) if count == 1 else np.isfinite(data).all()):
        raise DamagedArtifact("a scale or offset is not finite")
    return data.astype(np.float32).reshape(shape)
