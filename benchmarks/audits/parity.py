"""The parity chain: every way to the same numbers, compared with the one before it.

PyTorch's fake-quantized network = integer codes = decoded file = ONNX Runtime without optimisations ≈ with them,
and every further file against the first. A link that does not hold is reported, with the first layer that differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from modelpress.benchmarks.audits.fidelity import compare_logits
from modelpress.benchmarks.audits.first_difference import (
    TOLERANCE,
    first_differing_layer,
    unoptimised_session,
)
from modelpress.benchmarks.audits.weight_parity import compare_codes, compare_weights, not_comparable
from modelpress.benchmarks.measures.trial import arrays_of, calls_that_run
from modelpress.benchmarks.records import ParityStep
from modelpress.benchmarks.subjects.feeding import Feed
from modelpress.benchmarks.subjects.given import NOTHING, Given
from modelpress.benchmarks.subjects.inputs import InputSpec, check_takes_images, input_specs
from modelpress.benchmarks.subjects.model_file import ModelFile
from modelpress.export.errors import InputError, ModelError, ModelpressError
from modelpress.export.files.names import distinct_names
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import run_feed

FloatArray = npt.NDArray[np.float32]
MOST_IMAGES = 256
_BATCH, _RANDOM_IMAGES, _EXPOSED_IMAGES = 64, 32, 4
_MADE_CALLS = 4
_SEED = 0
_ROUNDING = ("QuantizeLinear", "DynamicQuantizeLinear")
_ROUNDS = "activations are rounded to integers, where sums that differ in the last bit may end a step apart"


def parity_chain(
    models: Sequence[ModelFile],
    images: FloatArray | None,
    *,
    given: Given = NOTHING,
    torch_logits: FloatArray | None = None,
    frozen: QuantizedModel | None = None,
    classes: bool = True,
) -> list[ParityStep]:
    """Compare all that ought to be the same network.

    The reference of the files is the first artifact among them, or else the first file.

    Args:
        models: At least one.
        images: Network input, shape ``(n, ...)``, of which the first 256 are used; None for what is given, or made.
        given: What the user says of other inputs.
        torch_logits: Shape ``(n, classes)``, of the network in PyTorch on these images.
        frozen: What was packed into the artifact.
        classes: A table of outputs is one of logits; else numbers are compared, and no labels.

    Raises:
        ValueError: There are no models, or fewer or more logits than images.

    Returns:
        One step per link, those about weights first. Files that cannot be compared make steps with
        ``n_compared == 0``, whose detail says why.
    """
    if not models:
        raise ValueError("the parity chain needs at least one model")
    if torch_logits is not None and (images is None or len(torch_logits) != len(images)):
        raise ValueError("logits of PyTorch need the images that they belong to")

    runs = _runs(models, images, given, classes)
    # the artifact is what the others were made from
    first = next((run for run in runs if run.model.artifact), runs[0])
    others = [run for run in runs if run is not first]
    steps = []
    if frozen is not None and first.model.artifact:
        steps.append(compare_codes(frozen, first.model.quantized_model(), candidate=first.name))

    steps += [_weights_against_first(first, other) for other in others]
    if torch_logits is not None:
        steps.append(_against_torch(torch_logits[:MOST_IMAGES], first))

    steps += [_optimised_against_plain(run) for run in (first, *others)]
    return steps + [_against_first(first, other) for other in others]


def _runs(
    models: Sequence[ModelFile], images: FloatArray | None, given: Given, classes: bool
) -> list["_Run"]:
    """Files by their names, or by their paths where names repeat."""
    names = distinct_names([model.path for model in models])
    return [_Run(model, name, images, given, classes) for model, name in zip(models, names, strict=True)]


def _weights_against_first(first: "_Run", other: "_Run") -> ParityStep:
    try:
        return compare_weights(
            first.model.onnx_model, other.model.onnx_model, reference=first.name, candidate=other.name
        )
    except InputError as error:
        return not_comparable("weights", first.name, other.name, str(error))


@dataclass(frozen=True, eq=False)
class _Run:
    """One file on images, or on calls of other inputs, with and without optimisations.

    Attributes:
        name: What the report calls it.
        pixels: Images; None for other inputs.
        given: What the user says of those.
        classes: Whether a table of outputs is one of logits.
    """

    model: ModelFile
    name: str
    pixels: FloatArray | None
    given: Given
    classes: bool = True
    _logits: dict[bool, FloatArray] = field(default_factory=dict)

    @cached_property
    def specs(self) -> list[InputSpec]:
        """Its inputs.

        Raises:
            InputError: It has none, or such as cannot be given.
        """
        return input_specs(self.model.onnx_model)

    @cached_property
    def images(self) -> FloatArray | None:
        """Network input, shape ``(n, ...)``, where one array of float32 is all that it takes; else None.

        Raises:
            InputError: There are none, or they do not fit.
        """
        if self.pixels is not None:
            if not len(self.pixels):
                raise InputError("there are no images")
            check_takes_images(self.specs, self.pixels.shape[1:], dtype=self.pixels.dtype.name)
            return self.pixels[:MOST_IMAGES]

        (spec, *more) = self.specs
        axes = (spec.shape or ("",))[1:]
        free = spec.shape is None or any(isinstance(axis, str) for axis in axes)
        if more or free or spec.dtype != "float32" or self.given.names:
            return None

        # random numbers tell implementations apart, though not accuracies
        size = (_RANDOM_IMAGES, *(int(axis) for axis in axes))
        return np.random.default_rng(_SEED).standard_normal(size).astype(np.float32)

    @cached_property
    def calls(self) -> list[list[Feed]]:
        """What is given, or made, of inputs that are no images.

        Raises:
            InputError: Nothing can be made, or nothing of it runs.
        """
        session = self.model.session()
        return calls_that_run(session, self.name, self.specs, self.given, n_made=_MADE_CALLS)

    def logits(self, *, optimised: bool) -> FloatArray:
        """All outputs beside each other, one row per image or call.

        Raises:
            InputError: The model does not run, or an output has no row of numbers per image.
        """
        if optimised not in self._logits:
            session = self.model.session() if optimised else unoptimised_session(self.model.onnx_model)
            if self.images is None:
                self._logits[optimised] = _run_calls(session, self.calls)
            else:
                self._logits[optimised] = run_images(session, self.images, batch=self.batch)
        return self._logits[optimised]

    @property
    def gives_logits(self) -> bool:
        """Whether its only output is a table of at least two columns, so that the largest entry is a label."""
        outputs = self.model.onnx_model.graph.output
        logits = self.logits(optimised=True)
        named = self.classes and self.images is not None
        return named and len(outputs) == 1 and logits.ndim == 2 and logits.shape[1] > 1

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size it takes; None for any."""
        axis = self.specs[0].shape[0] if self.specs[0].shape else ""
        return axis if isinstance(axis, int) else None

    @cached_property
    def batch(self) -> int:
        """How many images at a time: so many that their activations do not fill the memory."""
        assert self.images is not None
        most = min(_BATCH, len(self.images))
        return self.fixed_batch or self.model.batch_within(
            self.specs[0].name, self.images.shape[1:], most=most
        )

    def takes_the_same(self, other: "_Run") -> bool:
        """Whether both were fed alike."""
        if self.images is None or other.images is None:
            return self.images is other.images and self.calls == other.calls
        return self.images.shape == other.images.shape


def _run_calls(session: ort.InferenceSession, calls: Sequence[Sequence[Feed]]) -> FloatArray:
    """All outputs of each call, flattened, beside each other: a row for each, or one where they differ in length.

    Raises:
        InputError: ONNX Runtime rejects one, or an output is no array of numbers.
    """
    rows = []
    for call in calls:
        outputs = run_feed(session, arrays_of(call)).values()
        if not all(isinstance(output, np.ndarray) and output.dtype.kind in "biuf" for output in outputs):
            raise InputError("an output is no array of numbers")
        rows.append(np.concatenate([np.asarray(output, np.float32).reshape(-1) for output in outputs]))

    return np.stack(rows) if len({len(row) for row in rows}) == 1 else np.concatenate(rows)[None]


def run_images(session: ort.InferenceSession, images: FloatArray, *, batch: int) -> FloatArray:
    """Outputs of a model for all images, in batches of exactly `batch`, the last filled up.

    Returns:
        The only output as it is; several ones flattened, beside each other.

    Raises:
        InputError: The model does not take them, or gives no row of numbers per image.
    """
    feed, parts = session.get_inputs()[0].name, []
    for start in range(0, len(images), batch):
        # filled up by starting over
        part = images[np.arange(start, start + batch) % len(images)]
        try:
            outputs = session.run(None, {feed: part})
        except ModelpressError:
            raise
        except Exception as error:  # onnxruntime's exception classes share no public base
            raise InputError(f"ONNX Runtime rejects images of shape {part.shape}: {error}") from error

        rows = [_rows_of(output, batch) for output in outputs]
        parts.append(
            rows[0] if len(rows) == 1 else np.concatenate([r.reshape(batch, -1) for r in rows], axis=1)
        )

    return np.concatenate(parts)[: len(images)]


def _rows_of(output: object, batch: int) -> FloatArray:
    """One output as numbers.

    Raises:
        InputError: It holds text, or is no array with a row per image.
    """
    if not isinstance(output, np.ndarray) or output.dtype.kind not in "biuf":
        raise InputError("an output is no array of numbers")
    if output.ndim < 1 or len(output) != batch:
        raise InputError(f"an output has shape {output.shape} for {batch} images")
    return np.asarray(output, np.float32)


def _against_torch(logits: FloatArray, run: _Run) -> ParityStep:
    name = "PyTorch, fake-quantized"
    try:
        return _compare(logits, run.logits(optimised=True), name, run)
    except InputError as error:
        return not_comparable("logits", name, run.name, str(error))


def _optimised_against_plain(run: _Run) -> ParityStep:
    plain = f"{run.name}, optimisations off"
    try:
        step = _compare(run.logits(optimised=False), run.logits(optimised=True), plain, run)
    except InputError as error:
        return not_comparable("logits", plain, run.name, str(error))

    if step.n_compared and any(n.op_type in _ROUNDING for n in run.model.onnx_model.graph.node):
        step = step.model_copy(update={"detail": f"{step.detail}; {_ROUNDS}"})

    return step


def _against_first(first: _Run, other: _Run) -> ParityStep:
    try:
        if not first.takes_the_same(other):
            raise InputError(f"inputs differ: {_inputs_of(first)} beside {_inputs_of(other)}")
        expected, actual = first.logits(optimised=True), other.logits(optimised=True)
        step = _compare(expected, actual, first.name, other)
        far = (step.largest_difference or 0.0) > TOLERANCE * float(np.abs(expected).max(initial=0))
        if step.n_compared and (far or not step.equal):
            step = step.model_copy(update={"first_difference": _first_layer(first, other)})
    except InputError as error:
        return not_comparable("logits", first.name, other.name, str(error))
    return step


def _inputs_of(run: _Run) -> str:
    return "; ".join(map(str, run.specs))


def _first_layer(first: _Run, other: _Run) -> str:
    """Empty where the activations cannot be had: the outputs have been compared all the same."""
    if first.images is None:
        feed = arrays_of(first.calls[0])
    else:
        n = first.fixed_batch or other.fixed_batch or min(_EXPOSED_IMAGES, first.batch)
        feed = {first.specs[0].name: first.images[np.arange(n) % len(first.images)]}
    try:
        return first_differing_layer(first.model.onnx_model, other.model.onnx_model, feed)
    except InputError:
        return ""


def _where_finite(expected: FloatArray, actual: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both with zeros where both hold the same infinity, as masks make them."""
    same = np.isinf(expected) & (expected == actual)
    return (np.where(same, 0, expected), np.where(same, 0, actual)) if same.any() else (expected, actual)


def _compare(expected: FloatArray, actual: FloatArray, reference: str, run: _Run) -> ParityStep:
    """Outputs of a run beside others: by labels where they are logits, else within `TOLERANCE` of the largest."""
    candidate = run.name
    if expected.shape != actual.shape:
        return not_comparable(
            "logits", reference, candidate, f"outputs of shape {expected.shape} and {actual.shape}"
        )

    rows = len(expected)
    expected, actual = _where_finite(expected, actual)
    try:
        record = compare_logits(
            expected.reshape(rows, -1),
            actual.reshape(rows, -1),
            reference_name=reference,
            candidate_name=candidate,
        )
    except ModelError as error:
        return not_comparable("logits", reference, candidate, str(error))

    close = record.largest_difference <= TOLERANCE * float(np.abs(expected).max(initial=0))
    by_label = run.gives_logits

    return ParityStep(
        reference=reference,
        candidate=candidate,
        what="logits" if by_label else "outputs",
        n_compared=rows,
        equal=record.differing_labels == 0 if by_label else close,
        largest_difference=record.largest_difference,
        label_agreement=record.label_agreement if by_label else None,
        detail=f"labels of {record.differing_labels} images differ, ties left out"
        if by_label
        else f"no logits: equal within {TOLERANCE:g} of the largest",
    )
