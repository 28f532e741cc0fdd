"""What `bench FILE…` does: measure any models against each other."""

import os.path
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpress.benchmarks.audits.parity import MOST_IMAGES, parity_chain, run_images
from modelpress.benchmarks.environment import busy_note, describe_environment, usable_cores
from modelpress.benchmarks.measures.accuracy import classify
from modelpress.benchmarks.measures.exits import measure_exits
from modelpress.benchmarks.measures.latency import session_settings
from modelpress.benchmarks.measures.single_stream import (
    N_SAMPLES,
    Samples,
    balanced_choice,
    measure_profile,
    random_samples,
)
from modelpress.benchmarks.measures.trial import run_once
from modelpress.benchmarks.records import ExitsRecord, ModelRecord, ParityStep, ProfileRecord, Results
from modelpress.benchmarks.subjects.feeding import InputPlan
from modelpress.benchmarks.subjects.given import NOTHING, Given
from modelpress.benchmarks.subjects.inputs import check_takes_images, input_specs
from modelpress.benchmarks.subjects.model_file import ModelFile, open_model
from modelpress.benchmarks.suite import (
    add_accuracies,
    add_audits,
    add_latency,
    add_metrics,
    check_classes,
    describe_model,
    named,
    plan_all,
)
from modelpress.export.choices import DEFAULT_MAX_DECODED_BYTES
from modelpress.export.errors import InputError
from modelpress.export.exits.plan import plan_of
from modelpress.export.files.names import distinct_names
from modelpress.export.isolation.foreign import foreign_work
from modelpress.export.onnx_flavours.leaving_early import leaving_early
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.data.measured_set import MeasuredSet
from modelpress.toolkit.data.network_input import (
    Normalisation,
    network_input,
    network_inputs,
    normalisation_for,
)
from modelpress.toolkit.data.rows import Rows
from modelpress.toolkit.progress import Progress

_MOST_TIMED = 1000  # images that early exits are timed on


@dataclass(frozen=True)
class BenchPlan:
    """What is measured.

    Attributes:
        data: What accuracy is measured on.
        batches: Batch sizes of the latency.
        threads: Thread counts of the latency.
        rounds: How often the files take turns.
        inputs: What the user says of inputs.
        bounded: Leave out batch sizes whose activations would fill the memory.
        max_decoded_bytes: Refuse artifacts whose tensors are larger in memory.
    """

    data: MeasuredSet = field(default_factory=MeasuredSet)
    batches: tuple[int, ...] = (1, 8, 64)
    threads: tuple[int, ...] = (1, 2)
    rounds: int = 5
    inputs: Given = NOTHING
    bounded: bool = False
    max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES


def bench_files(paths: Sequence[Path], plan: BenchPlan, progress: Progress) -> Results:
    """Size, sparsity, what the runtime makes of the graph, accuracy and latency of `.press` and `.onnx` files.

    Everything that can be refused is refused before anything is timed.

    Raises:
        InputError: A file is no model, the data set is missing or does not fit, or inputs must be given.
        ModelpressError: A file cannot be timed.
    """
    with foreign_work():
        return _bench_files(paths, plan, progress)


def _bench_files(paths: Sequence[Path], plan: BenchPlan, progress: Progress) -> Results:
    bench = _Bench(paths, plan, progress)
    bench.plans = plan_all(bench.models, plan.inputs, plan.batches, bounded=plan.bounded)
    images = bench.test_images()

    bench.note(busy_note(bench.environment))
    if max(plan.threads) > usable_cores():
        bench.note(f"{max(plan.threads)} threads on {usable_cores()} cores: such latencies mean little")

    bench.examine(images)
    if images is not None:
        bench.measure_accuracy(images)
        bench.measure_exits(images)
    bench.measure_latency()
    return bench.results(images)


def bench_profile(paths: Sequence[Path], plan: BenchPlan, progress: Progress) -> Results:
    """The single-stream measurement of `modelpress.benchmarks.measures.single_stream`, beside size and sparsity.

    Raises:
        InputError: As `bench_files`; or a model does not run one image at a time.
        ModelpressError: A file cannot be timed.
    """
    with foreign_work():
        return _bench_profile(paths, plan, progress)


def _bench_profile(paths: Sequence[Path], plan: BenchPlan, progress: Progress) -> Results:
    bench = _Bench(paths, plan, progress)
    images = bench.test_images(classes=True)
    samples = bench.profile_samples(images)

    bench.note(busy_note(bench.environment))
    progress.start("single stream", plan.rounds * len(bench.paths))
    try:
        profile = measure_profile(
            bench.paths,
            [record.path for record in bench.records],
            samples,
            passes=plan.rounds,
            on_pass=lambda path: progress.advance(path.name),
        )
    finally:
        progress.finish()

    bench.note(f"profile {profile.name}: {profile.label}")
    bench.environment["sessions"] = session_settings((1,))
    return bench.results(images, profile=profile)


class _Bench:
    """The files of one benchmark, opened and described, and what is found out about them."""

    def __init__(self, paths: Sequence[Path], plan: BenchPlan, progress: Progress) -> None:
        if len(set(map(os.path.realpath, paths))) < len(paths):
            raise InputError("a file is given twice; give each one once")
        self.paths, self.plan, self.progress = list(paths), plan, progress
        self.notes: list[str] = []
        self.plans: list[InputPlan] = []
        self.parity: list[ParityStep] = []
        self.exits: list[ExitsRecord] = []
        self._inputs: dict[Normalisation, dict[str, Rows]] = {}
        self.environment = describe_environment()  # before our own work counts as load
        self.models: list[ModelFile] = [
            open_model(path, max_decoded_bytes=plan.max_decoded_bytes) for path in paths
        ]
        self.records: list[ModelRecord] = [
            describe_model(model, shown_as=name)
            for model, name in zip(self.models, distinct_names(self.paths), strict=True)
        ]

    def note(self, text: str) -> None:
        """Tell and record, if there is anything."""
        if text:
            self.notes.append(self._without_folders(text))
            self.progress.note(text)

    def _without_folders(self, text: str) -> str:
        """A note as it is recorded: with the last parts of the paths that were given."""
        given = [*self.paths, *self.plan.data.folders]
        for path in sorted((path for path in given if path.is_absolute()), key=lambda path: -len(str(path))):
            text = text.replace(str(path), path.name)
        return text

    def test_images(self, *, classes: bool = False) -> DataSet | None:
        """The data set asked for; else the one that the first file names, where it can be had and fits all files.

        Args:
            classes: Whether to classify one image with every file, to see that each knows the classes of the data set.

        Raises:
            InputError: A data set was asked for, and is missing, empty or does not fit a file.
        """
        data = self.plan.data.load(
            self.paths[0],
            self.models[0].metadata,
            check=self._check_classes if classes else self._check_fit,
            without=lambda why: self.note(f"accuracy is not measured: {why}"),
        )
        for text in data.notes if data is not None else ():
            self.note(text)
        return data

    def _check_fit(self, images: DataSet) -> None:
        for model in self.models:
            with named(model.path):
                normalisation_for(images, model.metadata)
                if not images.is_own:  # else the session tells, which knows several inputs and other types
                    check_takes_images(input_specs(model.onnx_model), images.test.first.shape[1:])

    def inputs_of(self, model: ModelFile, data: DataSet) -> dict[str, Rows]:
        """The test examples, normalised as this file says; made once for files that say the same."""
        rule = normalisation_for(data, model.metadata)
        if rule not in self._inputs:
            self._inputs.clear()  # of one kind at a time: 10,000 images of 32 by 32 are 123 MB
            self._inputs[rule] = network_inputs(data.test, data, model.metadata)
        return self._inputs[rule]

    def few_inputs(self, data: DataSet) -> npt.NDArray[np.float32] | None:
        """Input of the parity chain for the first file; None where it takes several."""
        inputs = list(self.inputs_of(self.models[0], data).values())
        return inputs[0][:MOST_IMAGES] if len(inputs) == 1 else None

    def _check_classes(self, images: DataSet) -> None:
        self._check_fit(images)
        for model in self.models:
            first = images.test.take(np.arange(1))
            with named(model.path):
                logits = classify(model.session(), network_inputs(first, images, model.metadata))
                check_classes(logits, images.n_outputs, exact=bool(images.class_names))

    def examine(self, data: DataSet | None) -> None:
        """What the runtime makes of every graph, and whether the files hold the same network.

        Raises:
            InputError: ONNX Runtime does not accept a model.
        """
        self.progress.start("graphs", 2)
        try:
            add_audits(self.records, self.models)
            self.progress.advance("parity")
            few = None if data is None else self.few_inputs(data)
            self.parity = parity_chain(
                self.models, few, given=self.plan.inputs, classes=data is None or data.classifies
            )
        finally:
            self.progress.finish()

    def measure_accuracy(self, images: DataSet) -> None:
        """In ONNX Runtime, on all test images.

        Raises:
            InputError: A data set was asked for, and a file does not classify its images.
        """
        self.progress.start("accuracy", len(self.models))
        try:
            if images.classifies:
                add_accuracies(
                    self.records,
                    self.models,
                    lambda model: self.inputs_of(model, images),
                    images.test.labels,
                    n_classes=images.n_outputs,
                    named_classes=bool(images.class_names),
                    on_model=lambda record: self.progress.advance(record.path),
                )
            else:
                add_metrics(
                    self.records,
                    self.models,
                    lambda model: self.inputs_of(model, images),
                    images.test.all_targets,
                    images.metric,
                    on_model=lambda record: self.progress.advance(record.path),
                )
        except InputError as error:
            if self.plan.data.is_asked_for:
                raise
            self.note(f"accuracy is not measured further: {error}")
        finally:
            self.progress.finish()

    def measure_exits(self, images: DataSet) -> None:
        """Who leaves artifacts with early exits where, and what that saves, in float."""
        for model, record in zip(self.models, self.records, strict=True):
            plan = None if model.artifact is None else plan_of(model.artifact.graph)
            if plan is None or not plan.used or not images.classifies:
                continue
            (inputs,) = self.inputs_of(model, images).values()
            self.progress.start("exits", 2)
            found = measure_exits(
                leaving_early(model.quantized_model(), flavour="float"),
                model.onnx_model,
                np.asarray(inputs[:]),
                images.test.labels,
                names=(f"{record.path}, leaving early", record.path),
                n_timed=_MOST_TIMED,
                rounds=self.plan.rounds,
                on_step=self.progress.advance,
            )
            self.progress.finish()
            self.exits.append(found)

    def measure_latency(self) -> None:
        """All files against each other.

        Raises:
            ModelpressError: A file cannot be timed.
        """
        plan = self.plan
        for model, feeds in zip(self.models, self.plans, strict=True):
            with named(model.path):
                run_once(model.session(), feeds)

        self.environment["sessions"] = session_settings(plan.threads)
        self.progress.start("latency", plan.rounds * len(self.paths))
        try:
            notes = add_latency(
                self.records,
                self.models,
                self.plans,
                threads=plan.threads,
                rounds=plan.rounds,
                on_round=lambda path: self.progress.advance(path.name),
            )
        finally:
            self.progress.finish()
        for text in notes:
            self.note(text)

    def profile_samples(self, images: DataSet | None) -> Samples:
        """200 test images, or random numbers of the shape that the first file takes.

        Raises:
            InputError: Not every file takes them one at a time.
        """
        specs = [input_specs(model.onnx_model) for model in self.models]

        if images is not None:
            if not images.classifies or not images.of_images:
                raise InputError(
                    "the profile measures images and their classes; leave --data out for random numbers"
                )
            n_classes = images.n_outputs
            test = images.test.take(balanced_choice(images.test.labels, n_classes))
            each = N_SAMPLES // n_classes
            described = f"{images.name}: {N_SAMPLES} test images, {each} of each class, seeded"
            if len({normalisation_for(images, model.metadata) for model in self.models}) > 1:
                raise InputError("the files normalise their input differently; profile them one by one")
            pixels = network_input(test.images, images, self.models[0].metadata)
            samples = Samples(pixels, test.labels, described)
        else:
            shape = specs[0][0].shape or ()
            if not all(isinstance(axis, int) for axis in shape[1:]):
                raise InputError(
                    f"{self.paths[0]}: the model expects {specs[0][0]}; the profile needs fixed axes but for the batch"
                )
            samples = random_samples([axis for axis in shape[1:] if isinstance(axis, int)])

        for model, inputs in zip(self.models, specs, strict=True):
            with named(model.path):
                check_takes_images(inputs, samples.images.shape[1:])
                if inputs[0].shape and inputs[0].shape[0] != 1 and not inputs[0].has_dynamic_batch:
                    raise InputError(f"the model expects {inputs[0]}; the profile runs one image at a time")
                run_images(
                    model.session(), samples.images[:1], batch=1
                )  # one that never ends is stopped here
        return samples

    def results(self, images: DataSet | None, *, profile: ProfileRecord | None = None) -> Results:
        """All that was found out."""
        facts: dict[str, Any] = {} if images is None else images.test_facts()
        return Results(
            environment=self.environment,
            dataset=facts,
            models=self.records,
            parity=self.parity,
            profile=profile,
            notes=self.notes,
            exits=self.exits,
        )
