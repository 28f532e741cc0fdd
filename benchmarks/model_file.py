"""A file to be measured, `.press` or `.onnx`, opened the same way."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from export.artifact import MAGIC, ArtifactUsage, artifact_usage, read_bytes
from export.errors import InputError
from export.graph import has_external_data, metadata
from export.onnx_flavours import emit


@dataclass(frozen=True)
class ModelFile:
    """One model on disk.

    Attributes:
        size_bytes: Of the file.
        onnx_model: What runs: the file itself, or the float flavour of the artifact.
        usage: Where an artifact's bytes are; None for ONNX files.
    """

    path: Path
    size_bytes: int
    onnx_model: onnx.ModelProto
    usage: ArtifactUsage | None

    @property
    def metadata(self) -> dict[str, str]:
        """The model's ``metadata_props``."""
        return metadata(self.onnx_model)

    def serialised(self) -> bytes:
        """The ONNX bytes that a runtime loads."""
        return bytes(self.onnx_model.SerializeToString())


def open_model(path: Path) -> ModelFile:
    """Open and decode a file; an artifact is known by its name or its first bytes, all else must be ONNX.

    Raises:
        InputError: The file cannot be read or is no model.
        ArtifactError: It is a damaged artifact.
    """
    data = read_bytes(path)
    if path.suffix == ".press" or data.startswith(MAGIC):
        usage = artifact_usage(data)
        return ModelFile(path, len(data), emit(usage.model, flavour="float"), usage)
    return ModelFile(path, len(data), _parse_onnx(path, data), None)


def _parse_onnx(path: Path, data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # protobuf warns before it raises
            model.ParseFromString(data)
    except DecodeError as error:
        raise InputError(f"{path}: neither a .press artifact nor an ONNX model") from error
    if not model.graph.node:
        raise InputError(f"{path}: neither a .press artifact nor an ONNX model with nodes")
    if has_external_data(model):
        raise InputError(
            f"{path}: some of its tensors lie in another file; store the model in one file to measure it"
        )
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # the checker and protobuf raise their own kinds
        raise InputError(f"{path}: is no valid ONNX model: {error}") from error
    return model
