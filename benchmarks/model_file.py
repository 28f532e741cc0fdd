"""A file to be measured, `.press` or `.onnx`, opened the same way."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from export.artifact import Artifact, TensorUsage, open_artifact
from export.artifact_frame import MAGIC
from export.errors import InputError
from export.graph import has_external_data, metadata
from export.onnx_flavours import emit
from export.quantized import QuantizedModel


@dataclass(frozen=True)
class ModelFile:
    """One model on disk.

    Attributes:
        size_bytes: Of the file.
        onnx_model: What runs: the file itself, or the float flavour of the artifact.
        artifact: Where the bytes of an artifact are, closed; None for ONNX files.
        stored: Its tensors and what each costs.
    """

    path: Path
    size_bytes: int
    onnx_model: onnx.ModelProto
    artifact: Artifact | None = None
    stored: list[TensorUsage] = field(default_factory=list)

    @property
    def metadata(self) -> dict[str, str]:
        """The model's ``metadata_props``."""
        return metadata(self.onnx_model)

    def quantized_model(self) -> QuantizedModel:
        """What an artifact holds.

        Raises:
            ValueError: This is an ONNX file.
        """
        if self.artifact is None:
            raise ValueError(f"{self.path} is no artifact")
        return _model(self.artifact, self.stored)

    def serialised(self) -> bytes:
        """The ONNX bytes that a runtime loads."""
        return bytes(self.onnx_model.SerializeToString())


def open_model(path: Path) -> ModelFile:
    """Open and decode a file; an artifact is known by its name or its first bytes, all else must be ONNX.

    Raises:
        InputError: The file cannot be read or is no model.
        ArtifactError: It is a damaged artifact.
    """
    if path.suffix == ".press" or _starts_like_artifact(path):
        with open_artifact(path) as artifact:
            stored = artifact.usages()
        return ModelFile(
            path, artifact.size_bytes, emit(_model(artifact, stored), flavour="float"), artifact, stored
        )
    data = path.read_bytes()
    return ModelFile(path, len(data), _parse_onnx(path, data))


def _model(artifact: Artifact, stored: list[TensorUsage]) -> QuantizedModel:
    return QuantizedModel(artifact.graph, {t.record.name: t.tensor for t in stored})


def _starts_like_artifact(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


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
