"""`manifest.json` of a bundle: what is handed over, what goes into it and comes out, and what was measured.

The document is versioned by `schema_version`; unknown fields are refused. Version 1, of images alone, is read too.
Sizes are in bytes, fractions of 1 for accuracies, milliseconds per call for latencies. All names of files are relative
to the bundle, with ``/``. `SHA256SUMS` beside it lists every other file, the manifest included, as ``sha256sum -c``
reads it.
"""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelpress.export.errors import InputError
from modelpress.export.handoff.bundle_files.verify import MAX_BATCH, MAX_IMAGES, MAX_THREADS

SCHEMA_VERSION: Literal[2] = 2
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
Task = Literal["classification", "multi-label", "regression", "sequence"]
Digest = Field(pattern="^[0-9a-f]{64}$")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class FileFacts(_Record):
    """Size and lower-case hexadecimal SHA-256 of one file."""

    size_bytes: int = Field(ge=0)
    sha256: str = Digest


class Normalisation(_Record):
    """How values become the model's input: ``(value * scale - mean) / std`` along the second axis.

    The scale of 8-bit pixels is 1 / 255, that of other values 1.
    """

    scale: float = Field(gt=0)
    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]


class Port(_Record):
    """One input or output.

    Attributes:
        dtype: Type of its numbers, as NumPy calls it.
        shape: Its axes; a word where one may have any length.
    """

    name: str
    dtype: str
    shape: list[int | str]


class Contract(_Record):
    """What a model takes and gives that classifies images, or other arrays of one size.

    Attributes:
        input_name: Name of its only input.
        input_shape: Its axes; the first is the batch, ``"N"`` where it may have any size.
        input_dtype: Type of the input.
        layout: What the axes mean; empty where that is not known.
        normalisation: None where it is not known how images become input, and where values are taken as they are.
        output_name: Name of its only output.
        output_shape: ``["N", classes]``, or what else the task gives.
        output: What the output is.
        labels: Names of the classes, in the order of the output; empty where they are not known.
        task: What it was made for.
    """

    input_name: str
    input_shape: list[int | str]
    input_dtype: Literal["float32", "int64"] = "float32"
    layout: str
    normalisation: Normalisation | None
    output_name: str
    output_shape: list[int | str]
    output: str = "logits, one per class; softmax gives probabilities"
    labels: list[str]
    task: Task = "classification"


class AccuracyClaim(_Record):
    """Top-1 accuracy of `model.onnx` in ONNX Runtime.

    Attributes:
        top1: Fraction of the test images classified right.
        interval: 95 % Wilson interval of `top1`.
        dataset: Name of the data set.
        fingerprint: SHA-256 of its test images (uint8, NCHW) followed by their labels (int64).
    """

    top1: float = Field(ge=0, le=1)
    n_images: int = Field(gt=0, le=MAX_IMAGES)
    interval: tuple[float, float]
    dataset: str
    fingerprint: str = Digest


class MetricClaim(_Record):
    """The figure of merit of `model.onnx` in ONNX Runtime, where that is not top-1.

    Attributes:
        metric: Its name; one of the user's own cannot be measured again by the bundle alone.
        interval: 95 %, by a bootstrap over examples, or Wilson's where they are right or wrong.
        fraction: Shown in percent.
        fingerprint: SHA-256 of the test inputs followed by their targets.
    """

    metric: str
    value: float
    interval: tuple[float, float]
    fraction: bool
    n_examples: int = Field(gt=0, le=MAX_IMAGES)
    dataset: str
    fingerprint: str = Digest


class LatencyClaim(_Record):
    """Time of one call of `model.onnx`, in a fresh process, on the machine named.

    Attributes:
        samples: Number of timed calls.
        machine: Processor, cores, system and version of ONNX Runtime, in words.
        busy: What else the machine did, in words; empty for nothing.
        peak_memory_bytes: Highest resident memory beyond that of an empty process; None where the system does not tell.
    """

    batch: int = Field(ge=1, le=MAX_BATCH)
    threads: int = Field(ge=1, le=MAX_THREADS)
    p50_ms: float = Field(gt=0)
    p90_ms: float = Field(gt=0)
    samples: int = Field(gt=0)
    machine: str
    busy: str = ""
    peak_memory_bytes: int | None = None


class Sample(_Record):
    """One test image.

    Attributes:
        label: Its true class, as an index into the output.
        predicted: The class with the largest output.
        probability: Softmax of that output.
    """

    file: str
    label: int = Field(ge=0)
    predicted: int = Field(ge=0)
    probability: float = Field(ge=0, le=1)


class SampleClaim(_Record):
    """Test images with the expected answers.

    Attributes:
        agreement: Fraction of the images whose predicted class is the true one.
        chosen: How they were chosen, in words.
    """

    agreement: float = Field(ge=0, le=1)
    chosen: str
    images: list[Sample] = Field(min_length=1)


class ReferenceCall(_Record):
    """One call of the model; files by names of inputs and outputs.

    Attributes:
        outputs: Of `model.onnx` in ONNX Runtime.
        in_float: Of the network in float, where `model.onnx` computes in integers; else empty.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]
    in_float: dict[str, str]


class ReferenceClaim(_Record):
    """Inputs and the outputs that belong to them, against which a port is checked.

    Attributes:
        source: Where the inputs come from, in words.
        noise: Root of squared difference over squared size of the outputs, `model.onnx` against float; 0 for float.
    """

    source: str
    noise: float = Field(ge=0)
    calls: list[ReferenceCall] = Field(min_length=1)


class Claims(_Record):
    """Everything measured when the bundle was made; all but the latency need a data set.

    Attributes:
        test_data: The test examples themselves, where they are handed over: an `.npz` file.
    """

    accuracy: AccuracyClaim | None
    samples: SampleClaim | None
    latency: LatencyClaim | None
    reference: ReferenceClaim | None = None
    metric: MetricClaim | None = None
    test_data: str | None = None


class Calibration(_Record):
    """How the ranges of activations were chosen, with names as of the command line."""

    method: str
    percentile: float
    images: int
    reduce_range: bool


class Compression(_Record):
    """The quantized weights of the artifact.

    Attributes:
        weights: Their number.
        zeros: How many of them are exactly zero.
        bits: Number of weights by code width.
    """

    weights: int
    zeros: int
    bits: dict[int, int]


class Manifest(_Record):
    """The whole document.

    Attributes:
        name: Of the bundle.
        license: SPDX expression of the model's licence, or ``unspecified``.
        flavour: How `model.onnx` stores its weights.
        why_flavour: Why this one, in words; empty where it was asked for.
        calibration: Of an integer flavour.
        metadata: The model's own ``metadata_props``.
        compression: Of the weights.
        recipe: Of the run that made the artifact, where its manifest lay beside it; else empty.
        dataset: Name of the data set the model was made for, and fingerprint of the test images where known.
        environment: Machine and library versions, when the bundle was made.
        claims: What was measured.
        inputs: What goes into the model.
        outputs: What comes out.
        contract: More of that, where it classifies; else None.
        files: Every file of the bundle but this one and `SHA256SUMS`.
    """

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    kind: Literal["modelpress bundle"] = "modelpress bundle"
    name: str
    license: str
    flavour: str
    why_flavour: str = ""
    calibration: Calibration | None = None
    metadata: dict[str, str]
    compression: Compression
    recipe: dict[str, Any]
    dataset: dict[str, str]
    environment: dict[str, Any]
    claims: Claims
    inputs: list[Port] = Field(default_factory=list)
    outputs: list[Port] = Field(default_factory=list)
    contract: Contract | None
    files: dict[str, FileFacts]

    def to_bytes(self) -> bytes:
        """The content of `manifest.json`."""
        return (self.model_dump_json(indent=2) + "\n").encode()

    def sums(self, data: bytes) -> bytes:
        """The content of `SHA256SUMS`, `data` being that of `manifest.json`."""
        digests = {name: facts.sha256 for name, facts in self.files.items()}
        digests[MANIFEST] = hashlib.sha256(data).hexdigest()
        return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Undo `Manifest.to_bytes`; `where` names the bundle in messages.

    Raises:
        InputError: This is no manifest, one of a newer schema, or it holds NaN or infinity, which JSON does not know.
    """
    wrong = f"{where}: {MANIFEST} is no bundle manifest of schema {SCHEMA_VERSION}"
    try:
        manifest = Manifest.model_validate_json(data)
        json.loads(data, parse_constant=_no_constant)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the document"
        raise InputError(f"{wrong}: {field}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{wrong}: {error}") from error

    return manifest


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")
