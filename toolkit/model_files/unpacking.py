"""An artifact as an ONNX model or as NumPy arrays."""

import re
import zipfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from modelpress.export.choices import DEFAULT_MAX_DECODED_BYTES
from modelpress.export.errors import InputError, ModelError
from modelpress.export.files.atomic import atomic_writer
from modelpress.export.files.blocks import is_of_numpy
from modelpress.export.files.kinds import check_ending
from modelpress.export.isolation.foreign import foreign_work
from modelpress.export.onnx_flavours import write_onnx
from modelpress.export.press.encodings.grid import grid_of
from modelpress.export.press.encodings.levels import levels_of
from modelpress.export.press.reading import open_artifact
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor
from modelpress.export.tensor_spec import INTEGER_TYPES, ONNX_TYPES, carrier_of

ArraysOf = Callable[[str, Tensor], Iterator[tuple[str, Any]]]  # members of an .npz for one tensor

_UNSAFE = re.compile(r"[%\\\x00-\x1f\x7f]")
_ZIP32_BYTES = 1 << 30  # members that may be longer than this need the large form of the format


def unpack_file(
    path: Path,
    target: Path,
    *,
    levels: bool = False,
    max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES,
) -> int:
    """Decode into ``.onnx`` or ``.npz``; returns the size of the new file in bytes.

    Args:
        path: Of the artifact.
        target: Of the new file.
        levels: Into the ``.npz``, only quantized tensors, as the signed levels that are coded.
        max_decoded_bytes: Refuse files whose tensors are larger in memory.

    Raises:
        InputError: The target has another suffix, or levels are asked for in an ONNX model.
    """
    check_ending(target, "a decoded model", (".onnx", ".npz"))
    if levels and target.suffix == ".onnx":
        raise InputError(f"{target}: --levels go into a name that ends in .npz")

    with open_artifact(path, max_decoded_bytes=max_decoded_bytes) as artifact:
        model = artifact.lazy_model()
        if target.suffix == ".onnx":
            with foreign_work():
                return write_onnx(target, model, flavour="float")

        with atomic_writer(target) as file:
            _write_npz(file, model, _levels_of if levels else _arrays_of)
    return target.stat().st_size


def _write_npz(file: IO[bytes], model: QuantizedModel, arrays_of: ArraysOf) -> None:
    """The arrays that `arrays_of` makes of each tensor.

    Raises:
        ModelError: Two tensors ask for the same name.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name in model.tensors:
            for member, array in arrays_of(member_name(name), model.tensors[name]):
                if f"{member}.npy" in archive.NameToInfo:
                    raise ModelError(f"two tensors are called {member!r}; unpack to .onnx instead")

                undated = zipfile.ZipInfo(f"{member}.npy")  # the same bytes each time
                with archive.open(
                    undated, "w", force_zip64=np.asarray(array).nbytes > _ZIP32_BYTES
                ) as content:
                    np.lib.format.write_array(content, np.asarray(array), allow_pickle=False)


def member_name(name: str) -> str:
    """What a tensor is called in an `.npz`: a path that stays in the folder it is unpacked into.

    A slash in front, steps upwards, backslashes and control characters are written as in a URL, and so is the per cent
    sign; `urllib.parse.unquote` gives the name back.

    Example:
        >>> member_name("encoder/layer.0/w"), member_name("/encoder/w"), member_name("../100%")
        ('encoder/layer.0/w', '%2Fencoder/w', '%2E%2E/100%25')
    """
    steps = [_UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", step) for step in name.split("/")]
    steps = [step.replace(".", "%2E") if set(step) == {"."} else step for step in steps]

    # an empty first step would make the path absolute; empty ones later may be lost
    joined = steps[0]
    for before, step in pairwise(steps):
        joined += ("/" if before and step else "%2F") + step
    return joined


def _levels_of(name: str, tensor: Tensor) -> Iterator[tuple[str, Any]]:
    """Levels of a quantized tensor in its shape."""
    if isinstance(tensor, QuantizedTensor):
        yield name, levels_of(tensor, grid_of(tensor), 0, tensor.codes.size).reshape(tensor.shape)


def _as_numpy_has(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same values in a type of NumPy's own: float32 or int8 for the short types of ONNX, which hold no more."""
    if is_of_numpy(array.dtype):
        return array
    numbers = carrier_of(array)
    is_integer = ONNX_TYPES[array.dtype] in INTEGER_TYPES
    return np.asarray(numbers if is_integer else array.astype(np.float32))


def _arrays_of(name: str, tensor: Tensor) -> Iterator[tuple[str, Any]]:
    """Integer codes and parameters as ``NAME/codes``, ``NAME/scale``, …; other tensors under their own name."""
    if not isinstance(tensor, QuantizedTensor):
        yield name, _as_numpy_has(tensor)
        return
    for part in ("codes", "scale", "offset", "support", "channel_scale"):
        if getattr(tensor, part) is not None:
            yield f"{name}/{part}", getattr(tensor, part)
