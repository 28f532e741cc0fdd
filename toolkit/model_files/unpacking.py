"""An artifact as an ONNX model or as NumPy arrays."""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from modelpress.export.errors import InputError, ModelError
from modelpress.export.files.atomic import atomic_writer
from modelpress.export.files.kinds import check_ending
from modelpress.export.isolation.foreign import foreign_work
from modelpress.export.onnx_flavours import write_onnx
from modelpress.export.press.encodings.grid import grid_of
from modelpress.export.press.encodings.levels import levels_of
from modelpress.export.press.reading import DEFAULT_MAX_DECODED_BYTES, open_artifact
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor

ArraysOf = Callable[[str, Tensor], Iterator[tuple[str, Any]]]  # members of an .npz for one tensor

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
        ModelError: A name would leave the folder it is unpacked into, or two tensors ask for the same one.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name in model.tensors:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
                raise ModelError(f"tensor name {name!r} is no safe file name; unpack to .onnx instead")

            for member, array in arrays_of(name, model.tensors[name]):
                if f"{member}.npy" in archive.NameToInfo:
                    raise ModelError(f"two tensors are called {member!r}; unpack to .onnx instead")

                undated = zipfile.ZipInfo(f"{member}.npy")  # the same bytes each time
                with archive.open(
                    undated, "w", force_zip64=np.asarray(array).nbytes > _ZIP32_BYTES
                ) as content:
                    np.lib.format.write_array(content, np.asarray(array), allow_pickle=False)


def _levels_of(name: str, tensor: Tensor) -> Iterator[tuple[str, Any]]:
    """Levels of a quantized tensor in its shape."""
    if isinstance(tensor, QuantizedTensor):
        yield name, levels_of(tensor, grid_of(tensor), 0, tensor.codes.size).reshape(tensor.shape)


def _arrays_of(name: str, tensor: Tensor) -> Iterator[tuple[str, Any]]:
    """Integer codes and parameters as ``NAME/codes``, ``NAME/scale``, …; other tensors under their own name."""
    if not isinstance(tensor, QuantizedTensor):
        yield name, tensor
        return
    for part in ("codes", "scale", "offset", "support", "channel_scale"):
        if getattr(tensor, part) is not None:
            yield f"{name}/{part}", getattr(tensor, part)
