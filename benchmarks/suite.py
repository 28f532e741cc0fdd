"""All measurements of a set of files, put together; the first file is the baseline of the others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from modelpress.benchmarks.audits.fusion import fusion_audit
from modelpress.benchmarks.codes.ladder import stored_ladder
from modelpress.benchmarks.measures.accuracy import (
    CLASSIFIED_AT_ONCE,
    Labels,
    Logits,
    classify,
    is_right,
    paired_test,
    top1,
    top5,
    wilson_interval,
)
from modelpress.benchmarks.measures.latency import Contestant, Loading, Turn, latency_records, measure_latency
from modelpress.benchmarks.measures.metrics import Metric, Targets, compare
from modelpress.benchmarks.measures.metrics import measure as measure_metric
from modelpress.benchmarks.measures.outputs import Examples, Outputs, outputs_of
from modelpress.benchmarks.measures.size import layer_record, size_record
from modelpress.benchmarks.measures.sparsity import total_sparsity
from modelpress.benchmarks.measures.trial import plan_that_runs
from modelpress.benchmarks.measures.verdict import compare_rounds
from modelpress.benchmarks.records import (
    ModelRecord,
    PairedBootstrap,
    PairedTest,
    SizeRecord,
    VerdictRecord,
)
from modelpress.benchmarks.subjects.feeding import InputPlan
from modelpress.benchmarks.subjects.given import Given
from modelpress.benchmarks.subjects.inputs import check_names, input_specs
from modelpress.benchmarks.subjects.model_file import ModelFile
from modelpress.benchmarks.subjects.running_weights import running_weights
from modelpress.export.errors import InputError, ModelError
from modelpress.export.graphs.activations import activation_sizes
from modelpress.export.onnx_flavours import FLAVOUR_METADATA
from modelpress.export.rate.outcomes import losses_of

_MOST_TIMED_BYTES = 400 << 20  # of activations; the runtime takes up to twice as much for them
Input = Examples | Mapping[str, Examples]


def describe_model(model: ModelFile, *, shown_as: str = "") -> ModelRecord:
    """Size and sparsity, in all and per layer; `shown_as` replaces the file's name."""
    with named(model.path):
        weights = running_weights(model.onnx_model)

    # an artifact knows more of a layer than the running graph does
    stored = {t.record.name: t for t in model.stored}
    losses = losses_of(model.metadata, {t.record.name: t.tensor for t in model.stored})
    return ModelRecord(
        name=model.path.stem,
        path=shown_as or model.path.name,
        format="press" if model.artifact else "onnx",
        flavour=None if model.artifact else model.metadata.get(FLAVOUR_METADATA),
        size_bytes=model.size_bytes,
        sparsity=total_sparsity(weights),
        layers=[
            layer_record(name, weight, stored.get(name), estimated_loss=losses.get(name))
            for name, weight in weights.items()
        ],
        size=_size(model),
    )


def _size(model: ModelFile) -> SizeRecord | None:
    if model.artifact is None:
        return None
    return size_record(model.artifact, model.stored, ladder=stored_ladder(model.stored))


def add_audits(records: Sequence[ModelRecord], models: Sequence[ModelFile]) -> None:
    """What ONNX Runtime makes of every graph; fills the records.

    Raises:
        InputError: It does not accept a model.
    """
    for record, model in zip(records, models, strict=True):
        record.audit = fusion_audit(model.serialised(), name=record.path)


def add_accuracies(
    records: Sequence[ModelRecord],
    models: Sequence[ModelFile],
    images: Input | Callable[[ModelFile], Input],
    labels: Labels,
    *,
    n_classes: int,
    named_classes: bool = True,
    on_model: Callable[[ModelRecord], None] = lambda record: None,
) -> list[Logits]:
    """Classify all images with every model in ONNX Runtime; fills the records and returns the logits, model by model.

    Args:
        records: One per model, in order.
        models: The first is the baseline of the paired tests.
        images: Network input, shape ``(n, channels, height, width)``; or what makes it for a model, where they differ
            in how their input is normalised.
        labels: Shape ``(n,)``.
        n_classes: Of the data set; a model must give as many logits.
        named_classes: They are all; else only those that occur are known, and a model may give more.
        on_model: Called whenever one is done.

    Raises:
        InputError: There are no images, or a model does not fit them.
    """
    found: list[Logits] = []
    for record, model in zip(records, models, strict=True):
        with named(model.path):
            given = images(model) if callable(images) else images
            logits = classify(model.session(), given, batch=_batch_of(model, given))
            check_classes(logits, n_classes, exact=named_classes)

        found.append(logits)
        n = len(labels)
        record.n_images, record.top1, record.top5 = n, top1(logits, labels), top5(logits, labels)
        record.top1_interval = wilson_interval(record.top1, n)
        record.top5_interval = None if record.top5 is None else wilson_interval(record.top5, n)
        # paired with the first, image by image
        if model is not models[0]:
            record.paired = paired_test(is_right(found[0], labels), is_right(logits, labels))

        on_model(record)

    return found


def add_metrics(
    records: Sequence[ModelRecord],
    models: Sequence[ModelFile],
    inputs: Callable[[ModelFile], Mapping[str, Examples]],
    targets: Targets,
    metric: Metric,
    *,
    on_model: Callable[[ModelRecord], None] = lambda record: None,
) -> list[Outputs]:
    """Measure any metric of every model in ONNX Runtime; fills the records and returns the outputs, model by model.

    Args:
        records: One per model, in order.
        models: The first is the baseline of the paired tests.
        inputs: What a model is given, by name.
        targets: What its outputs are held against.
        metric: Of both.
        on_model: Called whenever one is done.

    Raises:
        InputError: A model does not fit the data, or its outputs do not fit the targets.
    """
    found: list[Outputs] = []
    for record, model in zip(records, models, strict=True):
        with named(model.path):
            given = inputs(model)
            found.append(outputs_of(model.session(), given, batch=_batch_of(model, given)))
            record.metric = measure_metric(metric, found[-1], targets)
            record.n_images = record.metric.n_examples

            if model is not models[0]:
                test = compare(metric, found[0], found[-1], targets)
                record.paired = test if isinstance(test, PairedTest) else None
                record.bootstrap = test if isinstance(test, PairedBootstrap) else None
        on_model(record)

    return found


def _batch_of(model: ModelFile, given: Input) -> int:
    """Examples at a time, so that their activations do not fill the memory."""
    name = input_specs(model.onnx_model)[0].name
    rows = next(iter(given.values())) if isinstance(given, Mapping) else given
    return model.batch_within(name, rows.shape[1:], most=CLASSIFIED_AT_ONCE)


def check_classes(logits: Logits, n_classes: int, *, exact: bool = True) -> None:
    """A model must give one logit for each class of the data set; more of them, unless `exact`.

    Raises:
        InputError: It does not.
    """
    if logits.shape[1] < n_classes or (exact and logits.shape[1] != n_classes):
        raise InputError(
            f"the model gives {logits.shape[1]} logits, the data set has {n_classes} classes; "
            "choose the data set the model was trained on (--dataset)"
        )


def plan_all(
    models: Sequence[ModelFile], given: Given, batches: Sequence[int], *, bounded: bool = False
) -> list[InputPlan]:
    """What every model is fed with, found out before anything is measured.

    Args:
        models: To be timed.
        given: What the user says of their inputs.
        batches: Batch sizes.
        bounded: Leave out batches, but for the smallest, whose activations take more than 400 MB.

    Raises:
        InputError: Arrays are needed and not given, unknown, or do not fit.
        ModelError: A model takes too long.
    """
    specs = []
    for model in models:
        with named(model.path):
            specs.append(input_specs(model.onnx_model))

    check_names(given.names, specs)
    plans = [
        plan_that_runs(model.session, str(model.path), inputs, given, batches)
        for model, inputs in zip(models, specs, strict=True)
    ]
    if not bounded or len(batches) == 1:
        return plans
    return [_bounded(model, plan) for model, plan in zip(models, plans, strict=True)]


def _bounded(model: ModelFile, plan: InputPlan) -> InputPlan:
    """Without batches that would fill the memory."""
    kept, left_out = {}, []
    for batch, feeds in plan.feeds.items():
        sizes = activation_sizes(model.onnx_model, {feed.name: feed.shape for feed in feeds})
        if batch == min(plan.feeds) or sizes.peak <= _MOST_TIMED_BYTES:
            kept[batch] = feeds
        else:
            left_out.append(f"batch {batch}, whose activations take {sizes.peak:,} bytes")
    if not left_out:
        return plan

    note = f"{model.path}: left out {'; '.join(left_out)}; --batch times it all the same"
    return InputPlan(kept, "; ".join(filter(None, (plan.note, note))))


def add_latency(
    records: Sequence[ModelRecord],
    models: Sequence[ModelFile],
    plans: Sequence[InputPlan],
    *,
    threads: Sequence[int],
    rounds: int,
    on_round: Callable[[Path], None] = lambda path: None,
) -> list[str]:
    """Time all files against each other; fills the records.

    Args:
        records: One per model, in order.
        models: The first is the baseline.
        plans: What each is fed with, see `plan_all`.
        threads: Intra-operator thread counts.
        rounds: How often the files take turns.
        on_round: Called after each file's turn.

    Returns:
        What there is to say about batch sizes that were not timed, and about inputs.

    Raises:
        ModelpressError: A file cannot be timed.
    """
    contestants = [Contestant(model.path, plan) for model, plan in zip(models, plans, strict=True)]

    measured = measure_latency(contestants, threads=threads, rounds=rounds, on_round=on_round)
    reference = Loading.of(measured[0])
    for position, (record, plan, turns) in enumerate(zip(records, plans, measured, strict=True)):
        loading = Loading.of(turns)
        record.latency = latency_records(turns)
        record.session_ms, record.first_inference_ms = loading.session_ms, loading.first_inference_ms
        if min(plan.feeds) == min(plans[0].feeds):  # a first inference of more images is no slower loading
            record.session_ratio = loading.ratio_to(reference)
        record.peak_memory_bytes = loading.peak_memory_bytes
        # a file is not compared with itself
        record.verdicts = _verdicts(measured[0], turns) if position else []

    return [plan.note for plan in plans if plan.note]


def _verdicts(baseline: Sequence[Turn], turns: Sequence[Turn]) -> list[VerdictRecord]:
    """One for each setting that both were timed at."""
    return [
        compare_rounds(
            [turn.samples[setting] for turn in baseline],
            [turn.samples[setting] for turn in turns],
            batch=setting[0],
            threads=setting[1],
        )
        for setting in turns[0].samples
        if setting in baseline[0].samples
    ]


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Put a file's name before what is wrong with it."""
    try:
        yield
    except (InputError, ModelError) as error:
        raise type(error)(f"{path}: {error}") from error
