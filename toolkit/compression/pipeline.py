"""The whole chain as one readable function.

checkpoint → prune → quantize → freeze → model.press → ONNX → ONNX Runtime → report
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from modelpress.benchmarks.audits.fidelity import compare_logits, tensors_that_differ
from modelpress.benchmarks.audits.parity import parity_chain
from modelpress.benchmarks.environment import describe_environment
from modelpress.benchmarks.measures.latency import session_settings
from modelpress.benchmarks.records import FidelityRecord, Results, read_results, write_results
from modelpress.benchmarks.report.page import write_report
from modelpress.benchmarks.subjects.model_file import ModelFile, open_model
from modelpress.benchmarks.suite import add_accuracies, add_audits, add_latency, describe_model
from modelpress.export.errors import InputError, ModelError
from modelpress.export.graphs.building import metadata
from modelpress.export.onnx_flavours import FLAVOURS, prepare, write_emission, write_onnx
from modelpress.export.post_training.calibration import CalibrationOptions
from modelpress.export.press.artifact import read_artifact, write_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.toolkit.compression.chain import CHECKPOINT, PRUNED_NETWORK, compress
from modelpress.toolkit.compression.network_file import NetworkState, save_network
from modelpress.toolkit.compression.stages import (
    TrainingStage,
    check_dense,
    check_recipe_fits,
    freeze_stage,
    load_images,
    starting_network,
    train_stage,
    validation_top1,
)
from modelpress.toolkit.data.batches import to_device
from modelpress.toolkit.data.calibration_data import training_inputs
from modelpress.toolkit.data.image_set import ImageSet, normalised
from modelpress.toolkit.model_files.onnx_writing import calibrated_ranges
from modelpress.toolkit.output_folder import (
    MANIFEST,
    check_no_folder,
    file_facts,
    prepare_output_folder,
    read_manifest,
    state_path,
    write_manifest,
)
from modelpress.toolkit.progress import Progress, Silent
from modelpress.toolkit.recipe import Recipe
from modelpress.toolkit.training.device import Device, device_of
from modelpress.toolkit.training.evaluate import predict

PRESS, DENSE = "model.press", "dense-float.onnx"
DENSE_NETWORK = "dense.safetensors"
_TRAINED: dict[TrainingStage, str] = {
    "train": DENSE_NETWORK,
    "sparsify": PRUNED_NETWORK,
    "finetune": CHECKPOINT,
}
RESULTS, REPORT = "results.json", "report.html"


def run_pipeline(
    recipe: Recipe, output: Path, *, overwrite: bool = False, resume: bool = False, progress: Progress
) -> Results:
    """Carry out a recipe; every file of the result is in `output`.

    Raises:
        InputError: The recipe, the data, the checkpoint or the folder is not usable; found before training.
        Interrupted: Stopped on request; `resume` continues.
    """
    prepare_output_folder(output, overwrite=overwrite, resume=resume)
    for name in (*_TRAINED.values(), *_outputs(recipe), DENSE, RESULTS, REPORT, MANIFEST):
        check_no_folder(output / name)
    run = _Run(recipe, output, resume, progress)
    if resume and run.is_complete():
        progress.note("this run is complete already")
        return read_results(output / RESULTS)

    with run.stage("load"):
        device, images, dense = _load(recipe)
        progress.note(f"{images.name}: {_counts(images)}; {device.describe()}")
    run.begin(device)
    if recipe.model.checkpoint is None:
        with run.stage("train"):
            dense = run.train_dense(dense, images, device)
            save_network(output / DENSE_NETWORK, dense)
    with run.stage("evaluate"):
        run.report_validation("dense", dense, images, device)
        write_onnx(output / DENSE, freeze_stage(dense), flavour="float")
    with run.timed("compress"):
        quantized = compress(
            dense,
            images,
            recipe,
            device,
            folder=output,
            resume=resume,
            progress=progress,
            watch=lambda name, state: run.report_validation(name, state, images, device),
        )
    with run.stage("pack"):
        size = write_artifact(output / PRESS, freeze_stage(quantized), effort=recipe.pack.effort)
        progress.note(f"{PRESS}: {size:,} bytes, decodes bit-exactly")
    with run.stage("onnx"):
        run.write_flavours(read_artifact(output / PRESS), images)
    with run.stage("bench"):
        results = run.measure(quantized, images, device)
    with run.stage("report"):
        write_results(output / RESULTS, results)
        write_report(output / REPORT, [results])
    run.finish(quantized, images)
    return results


def join_pipeline(recipe: Recipe, output: Path, *, resume: bool) -> None:
    """Take part in the trainings of another process that runs the same recipe with `run_pipeline`; writes nothing.

    Raises:
        InputError: As in `run_pipeline`.
        Interrupted: One of the processes was asked to stop.
    """
    run = _Run(recipe, output, resume, Silent())
    if resume and run.is_complete():
        return
    device, images, dense = _load(recipe)
    if recipe.model.checkpoint is None:
        dense = run.train_dense(dense, images, device)
    compress(
        dense,
        images,
        recipe,
        device,
        folder=output,
        resume=resume,
        progress=Silent(),
        watch=lambda name, state: None,
    )


def _load(recipe: Recipe) -> tuple[Device, ImageSet, NetworkState]:
    """What a run starts from.

    Raises:
        InputError: Something of it is not usable, or the recipe does not fit it.
    """
    device = device_of(recipe.run)
    images = load_images(recipe.data)
    dense = starting_network(recipe, images, device)
    check_dense(dense)
    check_recipe_fits(dense, recipe, device)
    return device, images, dense


class _Run:
    """What the stages of one run share: folder, manifest and progress."""

    def __init__(self, recipe: Recipe, output: Path, resume: bool, progress: Progress) -> None:
        self.recipe, self.output, self.resume, self.progress = recipe, output, resume, progress
        self.manifest: dict[str, Any] = {
            "schema_version": 1,
            "modelpress": version("modelpress"),
            "status": "running",
            "recipe": recipe.model_dump(mode="json"),
            "environment": describe_environment(),
            "stages": [],
            "validation_top1": {},
        }

    def is_complete(self) -> bool:
        """Whether the folder holds this very run, finished.

        Raises:
            InputError: It holds a run of another recipe.
        """
        earlier = read_manifest(self.output)
        if earlier is None:
            return False
        if not _same_recipe(earlier.get("recipe"), self.recipe):
            raise InputError(
                f"{self.output}/ holds a run of another recipe; give the same options to resume it, "
                "or pass --overwrite to start again"
            )
        if earlier.get("status") != "complete":
            return False
        for name, facts in earlier.get("files", {}).items():
            if not (self.output / name).is_file() or file_facts(self.output / name) != facts:
                raise InputError(
                    f"{self.output}/ holds a complete run, but {name} is missing or changed; "
                    "pass --overwrite to run again"
                )
        return True

    def begin(self, device: Device) -> None:
        """Leave a manifest that names the run, once its inputs are known to be good."""
        if not self.resume:
            self._drop_states()
        self.manifest["environment"]["training_device"] = device.describe()
        write_manifest(self.output, self.manifest)

    def _drop_states(self) -> None:
        for name in _TRAINED.values():
            state_path(self.output / name).unlink(missing_ok=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce and time a stage."""
        self.progress.stage(name)
        with self.timed(name):
            yield

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a stage that announces its parts itself."""
        began = time.perf_counter()
        yield
        self.manifest["stages"].append({"name": name, "seconds": round(time.perf_counter() - began, 3)})

    def train_dense(self, state: NetworkState, images: ImageSet, device: Device) -> NetworkState:
        """Train the network that is to be compressed, resumable."""
        return train_stage(
            state,
            images,
            self.recipe,
            device,
            self.progress,
            stage="train",
            state_path=state_path(self.output / DENSE_NETWORK),
            resume=self.resume,
        )

    def write_flavours(self, packed: QuantizedModel, images: ImageSet) -> None:
        """Every ONNX model that the recipe asks for; training images calibrate the integer ones."""
        options, ranges = self.recipe.calibrate, None
        if any(FLAVOURS[flavour].integer for flavour in self.recipe.onnx):
            inputs = training_inputs(images, options.images, metadata(packed.graph))
            rule = CalibrationOptions(method=options.method, percentile=options.percentile)
            ranges = calibrated_ranges(packed, inputs, rule)
            self.progress.note(f"{len(ranges)} activations calibrated on {len(inputs):,} training images")
        for flavour in self.recipe.onnx:
            name = _onnx_name(flavour)
            emission = prepare(packed, flavour=flavour, ranges=ranges, reduce_range=options.reduce_range)
            size = write_emission(self.output / name, emission)
            self.progress.note(f"{name}: {size:,} bytes, checked")

    def report_validation(self, name: str, state: NetworkState, images: ImageSet, device: Device) -> None:
        """Measure and tell the accuracy on the held-out split."""
        fraction = validation_top1(state.compressed(), images, device)
        if fraction is not None:
            self.manifest["validation_top1"][name] = fraction
            self.progress.note(f"{name}: validation {fraction:.2%} of {len(images.validation):,} images")

    def measure(self, state: NetworkState, images: ImageSet, device: Device) -> Results:
        """Size, sparsity, accuracy, fidelity and latency of every file; here the test images are used."""
        bench, test = self.recipe.bench, images.test
        paths = [self.output / name for name in (DENSE, *_outputs(self.recipe))]
        pixels = normalised(test.images, images.mean, images.std)
        models = [open_model(path) for path in paths]
        records = [describe_model(model) for model in models]
        add_audits(records, models)
        self.progress.start("accuracy", len(models) + 1)
        found = add_accuracies(
            records,
            models,
            pixels,
            test.labels,
            n_classes=len(images.class_names),
            on_model=lambda record: self.progress.advance(f"{record.path} {record.top1:.2%}"),
        )
        logits = {path.name: rows for path, rows in zip(paths, found, strict=True)}
        trained = predict(state.compressed(), to_device(test, images, device.torch_device))
        fidelity = self._fidelity(trained, models, logits)
        parity = parity_chain(models[1:], pixels, torch_logits=trained, frozen=freeze_stage(state))
        self.progress.advance()
        self.progress.finish()
        self.progress.start("latency", bench.rounds * len(paths))
        add_latency(
            records,
            models,
            batches=bench.batch,
            threads=bench.threads,
            rounds=bench.rounds,
            on_round=lambda path: self.progress.advance(path.name),
        )
        self.progress.finish()
        return Results(
            environment={**self.manifest["environment"], "sessions": session_settings(bench.threads)},
            recipe=self.manifest["recipe"],
            dataset=images.test_facts(),
            training={k: v for k, v in state.history.items() if k in _TRAINED},
            parameters=state.history.get("parameters", {}),
            models=records,
            fidelity=fidelity,
            parity=parity,
        )

    def _fidelity(
        self,
        trained: npt.NDArray[np.float32],
        models: list[ModelFile],
        logits: dict[str, npt.NDArray[np.float32]],
    ) -> list[FidelityRecord]:
        """PyTorch's fake-quantized network against every file that holds it.

        Raises:
            ModelError: A float ONNX file holds other weights than the artifact.
        """
        files = {model.path.name: model for model in models}
        packed = files[PRESS].quantized_model()
        for name in (_onnx_name(flavour) for flavour in self.recipe.onnx if not FLAVOURS[flavour].integer):
            differing = tensors_that_differ(packed, files[name].onnx_model)
            if differing:
                raise ModelError(f"{name} differs from {PRESS} in {', '.join(differing)}")
        records = [
            compare_logits(
                trained, logits[name], reference_name="PyTorch, fake-quantized", candidate_name=name
            )
            for name in logits
            if name != DENSE
        ]
        for record in records:
            self.progress.note(
                f"{record.candidate}: {record.label_agreement:.2%} of labels as in PyTorch, "
                f"largest logit difference {record.largest_difference:.1e}"
            )
        return records

    def finish(self, state: NetworkState, images: ImageSet) -> None:
        """Complete the manifest and drop the training states."""
        checkpoint = self.recipe.model.checkpoint
        self.manifest.update(
            status="complete",
            dataset=images.test_facts(),
            source_checkpoint=None if checkpoint is None else file_facts(Path(checkpoint)),
            history=state.history,
            files={name: file_facts(self.output / name) for name in self._written()},
        )
        write_manifest(self.output, self.manifest)
        self._drop_states()  # only now: a run killed before is resumed from them

    def _written(self) -> list[str]:
        recipe = self.recipe
        dense = [DENSE_NETWORK] if recipe.model.checkpoint is None else []
        pruned = [PRUNED_NETWORK] if recipe.prune.by_penalty else []
        return sorted([*dense, *pruned, *_outputs(self.recipe), DENSE, CHECKPOINT, RESULTS, REPORT])


def _same_recipe(earlier: Any, recipe: Recipe) -> bool:
    """Whether a manifest's recipe means this one; keys that it does not know have their defaults."""
    try:
        return Recipe.model_validate(earlier) == recipe
    except ValidationError:
        return False


def _outputs(recipe: Recipe) -> list[str]:
    """The files that hold the compressed model."""
    return [PRESS, *map(_onnx_name, recipe.onnx)]


def _onnx_name(flavour: str) -> str:
    return f"model-{flavour}.onnx"


def _counts(images: ImageSet) -> str:
    return f"{len(images.train):,} training, {len(images.validation):,} validation, {len(images.test):,} test images"
