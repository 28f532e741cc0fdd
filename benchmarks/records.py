"""`results.json`: everything measured in one run, in one documented, versioned form.

Sizes are bytes of files on disk, accuracies fractions of 1, latencies milliseconds per batch.

Schema 2 added what every field below says with "schema 1 had none". Files of schema 1 are still read: those fields get
their defaults, and what is written again is schema 2.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from modelpress.export.errors import InputError
from modelpress.export.files.atomic import write_atomically
from modelpress.export.files.inputs import read_input
from modelpress.export.files.kinds import Wanted, check_kind
from modelpress.export.shown import Facts, Shown

SCHEMA_VERSION: Literal[2] = 2
_SHOWN_FILES = 8  # of results, where they are printed as an object
VerdictName = Literal["faster", "same", "slower", "undecided"]


def _in_utf8(value: object) -> object:
    """File names may hold bytes that are not UTF-8, JSON may not: they become escape sequences."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


_Text = Annotated[str, BeforeValidator(_in_utf8)]
_Count = Annotated[int, Field(gt=0)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LatencyRecord(_Record):
    """Latency of one model at one batch size and thread count.

    Attributes:
        samples: Number of timed calls, over all rounds; minimum, percentiles and mean are over all of them.
        p95_ms: Schema 1 had none, nor any of the following.
        mean_interval_ms: 95 % interval of the mean, Student's t over the means of the rounds; None for one round.
        images_per_second: Throughput: batch size over mean latency.
        rounds: Fresh processes; 0 where it was not recorded.
    """

    batch: _Count
    threads: _Count
    p50_ms: _Positive
    p90_ms: _Positive
    p99_ms: _Positive
    min_ms: _Positive
    samples: _Count
    p95_ms: _Positive | None = None
    mean_ms: _Positive | None = None
    mean_interval_ms: tuple[float, float] | None = None
    images_per_second: float | None = None
    rounds: int = 0


class VerdictRecord(_Record):
    """Latency of one model beside the baseline's, at one batch size and thread count; the rule: `verdict`.

    Attributes:
        ratio: Geometric mean over rounds of the ratio of medians within a round; below 1 is faster.
        ratio_interval: 95 % interval, Student's t on the logarithms; None for fewer than three rounds.
        min_ratio: Ratio of the fastest calls of all rounds.
        verdict: "same" where no difference beyond 2 % is shown; "undecided" where the interval is too wide for that.
    """

    batch: _Count
    threads: _Count
    ratio: _Positive
    ratio_interval: tuple[float, float] | None
    min_ratio: _Positive
    rounds: int
    verdict: VerdictName


class PairedTest(_Record):
    """Exact McNemar test: do two models classify the same images equally well?

    Attributes:
        n_only_baseline: Images that only the baseline gets right.
        n_only_this: Images that only this model gets right.
        p_value: Two-sided, that a difference at least as large comes by chance; 1 where no image tells them apart.
    """

    n_only_baseline: int
    n_only_this: int
    p_value: float


class MetricRecord(_Record):
    """How good the outputs of one model are, where the task is not to name one class.

    Attributes:
        name: Of the metric.
        interval: 95 %: Wilson's where examples are right or wrong, else of a bootstrap over examples.
        fraction: Shown in percent.
    """

    name: _Text
    value: float
    interval: tuple[float, float]
    n_examples: _Count
    lower_is_better: bool = False
    fraction: bool = True


class PairedBootstrap(_Record):
    """Does a model differ from the baseline on the same examples, drawn again and again with repetition?

    Attributes:
        difference: This model's figure minus the baseline's.
        interval: 95 %, of the difference.
        p_value: Two-sided: twice the share of resamples on the other side of none, at least two resamples' share.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    resamples: _Count


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
        grid_counts: Nonzero weights per code, from the lowest on; empty for float layers.
        estimated_loss: What rounding it at a price per bit was estimated to cost; None where there was no price.
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
    estimated_loss: float | None = None

    @property
    def bits_per_weight(self) -> float | None:
        """What a weight takes in the file, all parts; None for ONNX files."""
        return None if self.stored_bytes is None else 8 * self.stored_bytes / max(self.weights, 1)


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
        label_agreement: Fraction of images with the same top-1 label; None where outputs are no labels.
        differing_labels: Images whose labels differ although the logits are no tie (within `tie`).
        largest_difference: Largest absolute difference of any logit.
    """

    reference: str
    candidate: str
    n_images: int
    label_agreement: float | None
    differing_labels: int
    largest_difference: float
    tie: float


class NodeAudit(_Record):
    """What became of one compute operator when ONNX Runtime optimised the graph.

    Attributes:
        node: Name of the node; its first output's name where it has none.
        op: Operator as emitted.
        runs_as: Operator that does its work in the optimised graph; "removed" where none is left, "folded" where it
            was computed at load.
        integer: It computes on integers.
        reason: Why it does not compute on integers, or what makes it slow; empty where nothing is to be said.
        remedy: What to change in the file; empty where there is nothing.
    """

    node: str
    op: str
    runs_as: str
    integer: bool
    reason: str = ""
    remedy: str = ""


class FusionAudit(_Record):
    """The graph ONNX Runtime really runs, beside the one in the file.

    Attributes:
        emitted: Number of nodes by operator, in the file.
        optimised: The same after all optimisations; operators of other domains carry theirs, but for com.microsoft.
        nodes: The compute operators of the file, in graph order.
        summary: What they amount to, one sentence per line.
    """

    emitted: dict[str, int]
    optimised: dict[str, int]
    nodes: list[NodeAudit]
    summary: list[str]


class ParityStep(_Record):
    """One link of the parity chain: two ways to the same numbers, compared.

    Attributes:
        what: What was compared: integer codes, weights, logits.
        n_compared: Weights or images compared; 0 where the two are not comparable.
        equal: Equal bit for bit; for logits, every label that is no tie agrees.
        largest_difference: Largest absolute difference; None where nothing was compared.
        label_agreement: Fraction of images with the same top-1 label; None for weights and codes.
        first_difference: First layer that differs; empty where none does.
        detail: In words: unit and meaning of the difference, or why the two cannot be compared.
    """

    reference: _Text
    candidate: _Text
    what: str
    n_compared: int
    equal: bool
    largest_difference: float | None = None
    label_agreement: float | None = None
    first_difference: str = ""
    detail: _Text = ""


class ModelRecord(_Record):
    """One file.

    Attributes:
        sparsity: Fraction of all convolution and linear weights that are exactly 0.0; None where none were found.
        top1: Fraction of test images classified right; None without a data set.
        top1_interval: 95 % Wilson interval of `top1`.
        top5: The label is among the five largest logits; None for five classes or fewer. Schema 1 had none, nor any of
            the following.
        flavour: How the ONNX file stores its weights, from its metadata; None where it does not say.
        paired: Against the baseline; None for the baseline itself.
        session_ms: From the file's path to a session ready to run, first time in a process; median over rounds.
        first_inference_ms: The call after that, at the smallest batch size; median over rounds.
        session_ratio: Session creation and first inference together, over the baseline's; None where their smallest
            batch sizes differ.
        peak_memory_bytes: Highest resident memory beyond that of the process before it opened the file, over all batch
            sizes and rounds; None where unknown.
        verdicts: Against the baseline, where both ran that batch size; empty for the baseline itself.
        audit: What ONNX Runtime made of the graph; None where it was not asked.
        metric: Of tasks other than classification; None for that, and without a data set.
        bootstrap: `metric` against the baseline's, where examples are not simply right or wrong.
    """

    name: _Text
    path: _Text
    format: Literal["press", "onnx"]
    size_bytes: int = Field(gt=0)
    sparsity: float | None
    top1: float | None = None
    top1_interval: tuple[float, float] | None = None
    n_images: int = 0
    latency: list[LatencyRecord] = []
    layers: list[LayerRecord] = []
    size: SizeRecord | None = None
    flavour: str | None = None
    top5: float | None = None
    top5_interval: tuple[float, float] | None = None
    paired: PairedTest | None = None
    session_ms: float | None = None
    first_inference_ms: float | None = None
    session_ratio: float | None = None
    peak_memory_bytes: int | None = None
    verdicts: list[VerdictRecord] = []
    audit: FusionAudit | None = None
    metric: MetricRecord | None = None
    bootstrap: PairedBootstrap | None = None

    def summary_line(self) -> str:
        """Bytes, zeros and accuracy, as far as they are known."""
        known = [f"{self.size_bytes:,} bytes"]
        if self.sparsity is not None:
            known.append(f"{self.sparsity:.2%} zeros")
        if self.top1 is not None:
            known.append(f"top-1 {self.top1:.2%}")
        if self.metric is not None:
            shown = f"{self.metric.value:.2%}" if self.metric.fraction else f"{self.metric.value:.4g}"
            known.append(f"{self.metric.name} {shown}")
        return ", ".join(known)


class ProfileEntry(_Record):
    """One model in a benchmark profile.

    Attributes:
        path: As in its `ModelRecord`.
        p50_ms: Median latency of one image, over all passes.
        inferences_per_second: One over the median.
        top1: Of the images of one pass; None without a data set.
    """

    path: _Text
    p50_ms: _Positive
    p90_ms: _Positive
    inferences_per_second: _Positive
    top1: float | None = None
    top1_interval: tuple[float, float] | None = None


class ProfileRecord(_Record):
    """A measurement in the manner of a published benchmark.

    Attributes:
        name: Of the profile.
        label: What it is not; to be shown wherever its figures are.
        n_samples: Images per pass.
        passes: How often each model went through all of them, each time in a fresh process, models taking turns.
        images: Where they come from.
    """

    name: str
    label: str
    n_samples: int
    batch: int
    threads: int
    passes: int
    images: str
    models: list[ProfileEntry]


class ExitShare(_Record):
    """What leaves by one exit.

    Attributes:
        after: The block before it; "last" for the network's own.
        threshold: Confidence from which an example leaves; None for the last exit.
        share: Of the test images.
        top1: Of those that leave here; None where none does.
        alone_top1: Of all images, if all left here.
        latency_ms: Of one image that leaves here; None where none was timed.
    """

    after: _Text
    threshold: float | None
    share: float
    top1: float | None
    alone_top1: float
    latency_ms: float | None


class ExitPoint(_Record):
    """One common threshold for all exits.

    Attributes:
        latency_ratio: Expected of one image, from the latency of each exit, over that of the full network.
    """

    threshold: float
    top1: float
    latency_ratio: float


class ExitsRecord(_Record):
    """A network that its images may leave early, one at a time on one thread, against the full one.

    Attributes:
        path: The file with control flow.
        baseline: The file of the full network, in the same flavour.
        rule: What confidence is.
        exits: The last one at the end.
        top1: With the thresholds of the file.
        baseline_top1: Of the full network.
        n_images: That shares and accuracies are over.
        n_timed: Of them, those that were timed.
        clock: What latencies are measured by.
        latency_ms: Mean over the timed images, end to end.
        baseline_ms: Likewise, of the full network, in turns.
        overthinking: Images that an early exit gets right and the last one wrong.
        curve: Accuracy against latency, by a common threshold.
    """

    path: _Text
    baseline: _Text
    rule: str
    exits: list[ExitShare]
    top1: float
    baseline_top1: float
    n_images: _Count
    n_timed: _Count
    clock: str
    latency_ms: _Positive
    baseline_ms: _Positive
    overthinking: int = Field(ge=0)
    curve: list[ExitPoint]

    @property
    def ratio(self) -> float:
        """Mean latency over that of the full network."""
        return self.latency_ms / self.baseline_ms


class Results(Shown, _Record):
    """A whole run; the dense baseline first.

    Attributes:
        recipe: What was run; empty for `bench` on files from elsewhere.
        dataset: Name, fingerprint and number of test images; empty without one.
        training: Epochs as recorded by the training loop, by stage.
        parameters: Precision of scales and biases, and the validation accuracy with each; empty if not judged.
        profile: A measurement in the manner of a published benchmark; schema 1 had none, nor any of the following.
        parity: The chain from trained network to running file, link by link; empty where it was not asked.
        notes: What a reader of the figures should know, in sentences.
        exits: Of networks with early exits, by flavour.
    """

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    environment: dict[str, Any]
    recipe: dict[str, Any] = {}
    dataset: dict[str, Any] = {}
    training: dict[str, list[dict[str, Any]]] = {}
    parameters: dict[str, Any] = {}
    models: list[ModelRecord] = Field(min_length=1)
    fidelity: list[FidelityRecord] = []
    profile: ProfileRecord | None = None
    parity: list[ParityStep] = []
    notes: list[_Text] = []
    exits: list[ExitsRecord] = []

    def summary(self) -> Facts:
        """What there is to say in a few lines: the files, and what was measured of them."""
        files = {model.path: model.summary_line() for model in self.models[:_SHOWN_FILES]}
        more = len(self.models) - len(files)
        return {
            "dataset": str(self.dataset.get("name", "none")),
            **files,
            **({"and": f"{more} more files"} if more else {}),
        }

    @field_validator("schema_version")
    @classmethod
    def _read_as_current(cls, _: int) -> int:
        return SCHEMA_VERSION


def write_results(path: Path, results: Results) -> None:
    """Write `results.json`, whole or not at all."""
    write_atomically(path, (results.model_dump_json(indent=2) + "\n").encode())


def read_results(path: Path) -> Results:
    """Read `results.json`.

    Raises:
        InputError: The file is unreadable, of a newer schema, or no results.
    """
    check_kind(Path(path), Wanted.RESULTS)
    try:
        text = read_input(Path(path)).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    try:
        return Results.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise InputError(
            f"{path}: is no results file of schema 1 or {SCHEMA_VERSION}: {where}: {first['msg']}"
        ) from error
