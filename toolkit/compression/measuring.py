"""The files of a compressed network, and what is measured of them; only here the test images are looked at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import numpy as np

from modelpress.benchmarks.audits.fidelity import compare_outputs, tensors_that_differ
from modelpress.benchmarks.audits.parity import MOST_IMAGES, parity_chain
from modelpress.benchmarks.measures.latency import session_settings
from modelpress.benchmarks.measures.outputs import Outputs
from modelpress.benchmarks.records import FidelityRecord, ModelRecord, Results
from modelpress.benchmarks.subjects.given import NOTHING
from modelpress.benchmarks.subjects.model_file import ModelFile, open_model
from modelpress.benchmarks.suite import (
    add_accuracies,
    add_audits,
    add_latency,
    add_metrics,
    describe_model,
    plan_all,
)
from modelpress.export.choices import CalibrationMethod
from modelpress.export.errors import ModelError
from modelpress.export.exits.declaring import without_exits
from modelpress.export.exits.plan import plan_of
from modelpress.export.graphs.parts import metadata
from modelpress.export.onnx_flavours import FLAVOURS, prepare, write_emission
from modelpress.export.onnx_flavours.int8_ranges import choose_ranges
from modelpress.export.onnx_flavours.leaving_early import LeavingEarly, shown_for_use
from modelpress.export.post_training.calibration import ActivationRanges, CalibrationOptions
from modelpress.export.quantized import QuantizedModel
from modelpress.toolkit.compression.freeze import freeze_state
from modelpress.toolkit.compression.leaving.files import measured_exits, write_leaving_early
from modelpress.toolkit.compression.run_folder import DENSE, PRESS, model_files, onnx_name, recorded_recipe
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import TrainingSection, Work
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.data.network_input import network_inputs
from modelpress.toolkit.data.own_calibration import calibration_of
from modelpress.toolkit.data.rows import Rows
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.recipe import BenchOptions, Recipe
from modelpress.toolkit.training.evaluate import Judged, predict


def write_flavours(packed: QuantizedModel, work: Work, folder: Path) -> dict[str, LeavingEarly]:
    """Every ONNX model that the recipe asks for; training images calibrate the integer ones.

    Returns:
        Of a network with early exits that pay, the models that leave early, by flavour.

    Raises:
        ModelError: A flavour cannot be made of this model.
    """
    recipe = work.recipe
    integer = any(FLAVOURS[flavour].integer for flavour in recipe.onnx)
    plan = plan_of(packed.graph)
    leaves = plan is not None and bool(plan.used)
    ranges = calibrated(shown_for_use(packed) if leaves else packed, work) if integer else None

    for flavour in recipe.onnx:
        emission = prepare(packed, flavour=flavour, ranges=ranges, reduce_range=recipe.calibrate.reduce_range)
        size = write_emission(folder / onnx_name(flavour), emission)
        work.progress.note(f"{onnx_name(flavour)}: {size:,} bytes, checked")
    return write_leaving_early(packed, ranges, work, folder) if leaves else {}


def calibrated(packed: QuantizedModel, work: Work) -> ActivationRanges:
    """Ranges of the activations by the recipe's section calibrate, on training images."""
    options = work.recipe.calibrate
    inputs = calibration_of(work.data, metadata(packed.graph), n_examples=options.images)
    rule = CalibrationOptions(method=CalibrationMethod(options.method), percentile=options.percentile)
    chosen = choose_ranges(packed, inputs, rule, reduce_range=options.reduce_range)
    n_used = min(options.images, len(work.data.train))
    work.progress.note(
        f"{len(chosen.ranges)} activations calibrated on {n_used:,} training {work.data.noun}, by {chosen.method}"
    )
    return chosen.ranges


def measure(
    state: NetworkState,
    work: Work,
    folder: Path,
    environment: Mapping[str, Any],
    *,
    timed: bool = True,
    leaving: Mapping[str, LeavingEarly] = MappingProxyType({}),
) -> Results:
    """Size, sparsity, accuracy, fidelity and latency of every file of a run.

    Args:
        state: The compressed network that the files were made of.
        work: Recipe, images and device of the run.
        folder: Where the files are.
        environment: Of the run, for the record.
        timed: Whether latencies are measured.
        leaving: What leaves early, by flavour.

    Raises:
        ModelError: A float ONNX file holds other weights than the artifact.
    """
    recipe, data, progress = work.recipe, work.data, work.progress
    models = [open_model(folder / name) for name in (DENSE, *model_files(recipe))]
    records = [describe_model(model) for model in models]
    add_audits(records, models)

    inputs = network_inputs(data.test, data, {})
    progress.start("accuracy", len(models) + 1)
    found = _figures(records, models, inputs, data, progress)
    outputs = {model.path.name: rows for model, rows in zip(models, found, strict=True)}
    judged = Judged.of(data.test, data, work.device.torch_device)
    trained = predict(state.compressed(), judged.examples, batch=judged.batch)
    fidelity = _fidelity(trained, models, outputs, recipe, progress, classes=_in_classes(data))

    single = len(inputs) == 1 and isinstance(trained, np.ndarray)
    few = next(iter(inputs.values()))[:MOST_IMAGES] if single else None
    parity = parity_chain(
        models[1:],
        few,
        torch_logits=trained[: len(few)] if few is not None and isinstance(trained, np.ndarray) else None,
        frozen=freeze_state(state),
        classes=data.classifies,
    )
    progress.advance()
    progress.finish()

    if timed:
        _add_latencies(records, models, recipe.bench, progress)
    return Results(
        environment={**environment, "sessions": session_settings(recipe.bench.threads)},
        recipe=recorded_recipe(recipe, folder),
        dataset=data.test_facts(),
        training={k: v for k, v in state.history.items() if k in get_args(TrainingSection)},
        parameters=state.history.get("parameters", {}),
        models=records,
        fidelity=fidelity,
        parity=parity,
        exits=measured_exits(leaving, models, work),
    )


def _figures(
    records: list[ModelRecord],
    models: list[ModelFile],
    inputs: dict[str, Rows],
    data: DataSet,
    progress: Progress,
) -> Sequence[Outputs]:
    """The figure of merit of every file; fills the records."""
    if not data.classifies:
        metric = data.metric
        return add_metrics(
            records,
            models,
            lambda model: inputs,
            data.test.all_targets,
            metric,
            on_model=lambda record: progress.advance(
                record.path if record.metric is None else f"{record.path} {metric.shown(record.metric.value)}"
            ),
        )
    return add_accuracies(
        records,
        models,
        inputs,
        data.test.labels,
        n_classes=data.n_outputs,
        named_classes=bool(data.class_names),
        on_model=lambda record: progress.advance(f"{record.path} {record.top1:.2%}"),
    )


def _in_classes(data: DataSet) -> bool:
    """Whether the last axis of the output is that of classes, one of which is meant."""
    return data.task.kind in ("classification", "sequence") and data.task.metric is None


def _add_latencies(
    records: list[ModelRecord], models: list[ModelFile], options: BenchOptions, progress: Progress
) -> None:
    progress.start("latency", options.rounds * len(models))
    add_latency(
        records,
        models,
        plan_all(models, NOTHING, options.batch),
        threads=options.threads,
        rounds=options.rounds,
        on_round=lambda path: progress.advance(path.name),
    )
    progress.finish()


def _fidelity(
    trained: Outputs,
    models: list[ModelFile],
    outputs: Mapping[str, Outputs],
    recipe: Recipe,
    progress: Progress,
    *,
    classes: bool,
) -> list[FidelityRecord]:
    """PyTorch's fake-quantized network against every file that holds it.

    Raises:
        ModelError: A float ONNX file holds other weights than the artifact.
    """
    _check_weights(models, recipe)

    records = [
        compare_outputs(
            trained,
            outputs[name],
            reference_name="PyTorch, fake-quantized",
            candidate_name=name,
            classes=classes,
        )
        for name in outputs
        if name != DENSE
    ]
    for record in records:
        agreement = record.label_agreement
        labels = "" if agreement is None else f"{agreement:.2%} of labels as in PyTorch, "
        what = "logit" if agreement is not None else "output"
        progress.note(
            f"{record.candidate}: {labels}largest {what} difference {record.largest_difference:.1e}"
        )
    return records


def _check_weights(models: list[ModelFile], recipe: Recipe) -> None:
    files = {model.path.name: model for model in models}
    packed = without_exits(files[PRESS].quantized_model())
    for name in (onnx_name(flavour) for flavour in recipe.onnx if not FLAVOURS[flavour].integer):
        differing = tensors_that_differ(packed, files[name].onnx_model)
        if differing:
            raise ModelError(f"{name} differs from {PRESS} in {', '.join(differing)}")
