"""`results.json`: everything measured in one run, in one documented, versioned form.

Sizes are bytes of files on disk, accuracies fractions of 1, latencies milliseconds per batch.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from export.atomic_file import write_atomically
from export.errors import InputError

SCHEMA_VERSION: Literal[1] = 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LatencyRecord(_Record):
    """Latency of one model at one batch size and thread count.

    Attributes:
        samples: Number of timed calls, over all rounds.
    """

    batch: int
    threads: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    samples: int


class LayerRecord(_Record):
    """One convolution or linear layer, as it really runs.

    Attributes:
        sparsity: Fraction of weights that are exactly 0.0.
        bits: Code width; None for float layers and ONNX files.
        encoding: How the artifact stores it; None for ONNX files.
        stored_bytes: In the artifact, all parts; None for ONNX files.
        parts: Bytes by part: header, scales, tables, payload.
        bin_edges: Bounds of the histogram bins, in weight units; empty for ONNX files.
        bin_counts: Nonzero weights per bin.
        grid: Values that codes stand for before batch norm is folded in; empty for float layers and for those
            with a scale per channel.
        grid_counts: Nonzero weights per value of `grid`.
    """

    name: str
    shape: list[int]
    weights: int
    sparsity: float
    bits: int | None = None
    encoding: str | None = None
    stored_bytes: int | None = None
    parts: dict[str, int] = {}
    bin_edges: list[float] = []
    bin_counts: list[int] = []
    grid: list[float] = []
    grid_counts: list[int] = []


class SizeRecord(_Record):
    """Where the bytes of an artifact are; the values add up to the file.

    Attributes:
        ladder: The quantized weights as bare float32 and int8 arrays, and in every encoding: bytes by name.
    """

    payload: int
    tables: int
    scales: int
    headers: int
    float_tensors: int
    directory: int
    graph: int
    frame: int
    ladder: dict[str, int]


class FidelityRecord(_Record):
    """How closely two ways of running the same model agree.

    Attributes:
        label_agreement: Fraction of images with the same top-1 label.
        differing_labels: Images whose labels differ although the logits are no tie (within `tie`).
        largest_difference: Largest absolute difference of any logit.
    """

    reference: str
    candidate: str
    n_images: int
    label_agreement: float
    differing_labels: int
    largest_difference: float
    tie: float


class ModelRecord(_Record):
    """One file.

    Attributes:
        sparsity: Fraction of all convolution and linear weights that are exactly 0.0; None where none were found.
        top1: Fraction of test images classified right; None without a data set.
        top1_interval: 95 % Wilson interval of `top1`.
    """

    name: str
    path: str
    format: Literal["press", "onnx"]
    size_bytes: int = Field(gt=0)
    sparsity: float | None
    top1: float | None = None
    top1_interval: tuple[float, float] | None = None
    n_images: int = 0
    latency: list[LatencyRecord] = []
    layers: list[LayerRecord] = []
    size: SizeRecord | None = None


class Results(_Record):
    """A whole run; the dense baseline first.

    Attributes:
        recipe: What was run; empty for `bench` on files from elsewhere.
        dataset: Name, fingerprint and number of test images; empty without one.
        training: Epochs as recorded by the training loop, by stage.
        parameters: Precision of scales and biases, and the validation accuracy with each; empty if not judged.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    environment: dict[str, Any]
    recipe: dict[str, Any] = {}
    dataset: dict[str, Any] = {}
    training: dict[str, list[dict[str, Any]]] = {}
    parameters: dict[str, Any] = {}
    models: list[ModelRecord] = Field(min_length=1)
    fidelity: list[FidelityRecord] = []


def write_results(path: Path, results: Results) -> None:
    """Write `results.json`, whole or not at all."""
    write_atomically(path, (results.model_dump_json(indent=2) + "\n").encode())


def read_results(path: Path) -> Results:
    """Read `results.json`.

    Raises:
        InputError: The file is unreadable, of a newer schema, or no results.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error
    try:
        return Results.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise InputError(
            f"{path}: is no results file of schema {SCHEMA_VERSION}: {where}: {first['msg']}"
        ) from error
