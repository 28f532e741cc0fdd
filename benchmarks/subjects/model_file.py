"""A file to be measured, `.press` or `.onnx`, opened the same way."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from modelpress.export.choices import DEFAULT_MAX_DECODED_BYTES
from modelpress.export.errors import InputError, ModelError
from modelpress.export.files.inputs import read_input
from modelpress.export.files.kinds import Wanted, wrong_kind
from modelpress.export.graphs.activations import activation_sizes, batch_within
from modelpress.export.graphs.bounds import check_bounds
from modelpress.export.graphs.check import check_as_runtimes_do
from modelpress.export.graphs.entering.order import sort_nodes
from modelpress.export.graphs.parts import has_external_data, metadata
from modelpress.export.graphs.stream import MAX_ONNX_BYTES
from modelpress.export.onnx_flavours import emit
from modelpress.export.press.reading import Artifact, TensorUsage, open_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import open_decoded, open_session
from modelpress.export.sessions import is_artifact
from modelpress.export.shown import Facts, Shown

if TYPE_CHECKING:
    import onnxruntime as ort


@dataclass(frozen=True, repr=False)
class ModelFile(Shown):
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

    def summary(self) -> Facts:
        """What there is to say in a few lines."""
        return {
            "path": str(self.path),
            "kind": "ONNX model" if self.artifact is None else ".press artifact",
            "bytes": f"{self.size_bytes:,}",
            "graph": f"{len(self.onnx_model.graph.node)} nodes",
        }

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

    def batch_within(self, name: str, shape: Sequence[int], *, most: int) -> int:
        """How many examples at a time, so that what is computed of them does not fill the memory.

        Args:
            name: Of the input.
            shape: Of an example, the batch axis left out.
            most: Of any model.
        """
        sizes = activation_sizes(self.onnx_model, {name: (1, *shape)})
        return batch_within(sizes.peak, 1, most=most)

    def session(self, *, threads: int | None = None) -> "ort.InferenceSession":
        """A session of what is decoded here, as `load_session` makes it of the file."""
        if self.artifact is None:
            return open_session(self.serialised(), threads=threads)
        return open_decoded(self.quantized_model(), threads=threads)


def open_model(path: Path, *, max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES) -> ModelFile:
    """Open and decode a file; what is no artifact must be ONNX.

    Args:
        path: Of the file.
        max_decoded_bytes: Refuse artifacts whose tensors are larger in memory.

    Raises:
        InputError: The file cannot be read or is no model.
        ArtifactError: It is a damaged artifact.
    """
    if is_artifact(path):
        with open_artifact(path, max_decoded_bytes=max_decoded_bytes) as artifact:
            stored = artifact.usages()
        return ModelFile(
            path, artifact.size_bytes, emit(_model(artifact, stored), flavour="float"), artifact, stored
        )

    data = read_input(path, most=MAX_ONNX_BYTES)
    return ModelFile(path, len(data), _parse_onnx(path, data))


def _model(artifact: Artifact, stored: list[TensorUsage]) -> QuantizedModel:
    return QuantizedModel(artifact.graph, {t.record.name: t.tensor for t in stored})


def _parse_onnx(path: Path, data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # protobuf warns before it raises
            model.ParseFromString(data)
    except DecodeError as error:
        raise InputError(wrong_kind(path, Wanted.MODEL)) from error

    if not model.graph.node:
        raise InputError(f"{wrong_kind(path, Wanted.MODEL)} with nodes")
    if has_external_data(model):
        raise InputError(
            f"{path}: some of its tensors lie in another file; store the model in one file to measure it"
        )

    try:
        check_bounds(model)
        sort_nodes(model)  # as runtimes do
        check_as_runtimes_do(model)
    except ModelError as error:
        raise InputError(f"{path}: {error}") from error

    return model
