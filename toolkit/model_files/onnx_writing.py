"""An artifact as an ONNX model of any flavour."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelpress.export.choices import CALIBRATION_INPUTS, CALIBRATION_METHOD, ExitForm
from modelpress.export.errors import CommandLineError, InputError
from modelpress.export.files.atomic import write_atomically
from modelpress.export.files.kinds import check_ending
from modelpress.export.graphs.check import check_as_runtimes_do
from modelpress.export.graphs.entering.opset import in_opset
from modelpress.export.graphs.parts import metadata
from modelpress.export.onnx_flavours import FLAVOURS, check_flavour, data_file_of, prepare, write_emission
from modelpress.export.onnx_flavours.int8 import MIN_OPSET
from modelpress.export.onnx_flavours.int8_noise import Int8Noise, exclude_until, measure_noise
from modelpress.export.onnx_flavours.int8_ranges import ChosenRanges, choose_ranges
from modelpress.export.onnx_flavours.leaving_early import LeavingEarly, leaving_early, shown_for_use
from modelpress.export.post_training.calibration import (
    ActivationRanges,
    CalibrationOptions,
    Feed,
    Inputs,
)
from modelpress.export.quantized import QuantizedModel
from modelpress.toolkit.data.calibration_data import load_calibration
from modelpress.toolkit.data.calibration_feeds import load_feeds
from modelpress.toolkit.data.own_calibration import is_own, own_calibration
from modelpress.toolkit.recipe_yaml import described


@dataclass(frozen=True)
class FlavourRequest:
    """Which ONNX model is wanted.

    Attributes:
        flavour: A key of `modelpress.export.onnx_flavours.FLAVOURS`.
        data: For integer flavours, inputs to calibrate activations on: a file or a data set's folder.
        n_images: How many of them, at most.
        options: How ranges are chosen.
        reduce_range: Integer weights of 7 bits.
        exclude: What of an integer flavour stays in float: operators, and names of nodes or of what they make.
        loss: Leave more in float until the outputs are as near: error over signal, both as roots of squares.
        noise: Measure what integers do to each layer.
        opset: Convert the graph to this version of the standard operators, where its own is older.
        exits: Write what leaves early: one file with control flow, or a file for each stage; None: the full network.

    Raises:
        CommandLineError: One without calibration gets options of it, or the loss is not positive.
        InputError: The flavour is unknown.
    """

    flavour: str
    data: Path | None = None
    n_images: int = CALIBRATION_INPUTS
    options: CalibrationOptions = field(default_factory=lambda: CalibrationOptions(method=CALIBRATION_METHOD))
    reduce_range: bool = False
    exclude: tuple[str, ...] = ()
    loss: float | None = None
    noise: bool = False
    opset: int | None = None
    exits: ExitForm | None = None

    def __post_init__(self) -> None:
        check_flavour(self.flavour)
        if not self.is_integer and (self.data is not None or self.reduce_range):
            raise CommandLineError(
                f"--calibration-data and --reduce-range are for integer flavours; {self.flavour} computes in float"
            )
        if not self.is_integer and (self.exclude or self.loss is not None or self.noise):
            raise CommandLineError(
                f"--exclude, --auto-exclude and --noise are for integer flavours; {self.flavour} computes in float"
            )
        if self.loss is not None and not self.loss > 0:
            raise CommandLineError(f"--auto-exclude is {self.loss}; expected a loss above 0, e.g. 0.05")

    @property
    def is_integer(self) -> bool:
        """Whether activations are calibrated."""
        return FLAVOURS[self.flavour].integer is not None


def write_flavour(path: Path, model: QuantizedModel, request: FlavourRequest) -> dict[str, Any]:
    """Write an ONNX file, whole or not at all.

    Returns:
        Its size, flavour, notes, and how it was calibrated.

    Raises:
        InputError: Calibration data are missing or do not fit, or the file cannot be written.
        ModelError: The flavour cannot be made of this model.
    """
    check_ending(path, "an ONNX model", (".onnx",))
    facts: dict[str, Any] = {"output": str(path), "flavour": request.flavour}
    model = model if request.opset is None else in_opset(model, request.opset)
    whole = model
    if request.exits is not None:
        model = shown_for_use(whole)
    ranges, exclude, notes = None, list(request.exclude), []

    if request.is_integer:
        inputs = calibration_inputs(model, request)
        chosen = chosen_ranges(
            model, inputs, request.options, reduce_range=request.reduce_range, exclude=exclude
        )
        notes += _choice_notes(chosen)
        options = replace(request.options, method=chosen.method)
        noise, ranges = _noise(model, chosen.ranges, inputs, replace(request, options=options))
        if noise is not None:
            exclude = noise.excluded
            facts["noise"] = _noise_facts(noise)
        facts["calibration"] = {
            "method": str(chosen.method),
            "losses": {str(rule): loss for rule, loss in chosen.losses.items()},
            "inputs": len(inputs),  # or calls
            "activations": len(ranges),
            "reduce_range": request.reduce_range,
        }

    if request.exits is not None:
        early = leaving_early(
            whole, flavour=request.flavour, ranges=ranges, reduce_range=request.reduce_range, exclude=exclude
        )
        written = _write_exits(path, early, request.exits)
        return {**facts, **written, "notes": [*notes, *written["notes"]]}

    emission = prepare(
        model, flavour=request.flavour, ranges=ranges, reduce_range=request.reduce_range, exclude=exclude
    )
    size = write_emission(path, emission)
    notes += emission.notes
    if size > path.stat().st_size:
        notes.append(
            f"one ONNX file holds 2 GiB: the weights are in {data_file_of(path).name}; keep both files together"
        )
    return {**facts, "size_bytes": size, "notes": notes}


def stage_path(path: Path, number: int) -> Path:
    """Where a stage is written, counted from 1.

    Example:
        >>> stage_path(Path("out/model.onnx"), 2).name
        'model-stage2.onnx'
    """
    return path.with_name(f"{path.stem}-stage{number}{path.suffix}")


def _write_exits(path: Path, early: LeavingEarly, form: ExitForm) -> dict[str, Any]:
    """One file, or a file for each stage; what there is to say of them.

    Raises:
        InputError: A file is there already, or cannot be written.
    """
    models = {path: early.one}
    if form is ExitForm.STAGES:
        models = {stage_path(path, k): part for k, part in enumerate(early.parts, start=1)}
        there = [str(place) for place in models if place.exists()]
        if there:
            raise InputError(f"{there[0]} exists; move it, or choose another name")

    for place, model in models.items():
        check_as_runtimes_do(model)
        write_atomically(place, model.SerializeToString())
    return {
        "size_bytes": sum(place.stat().st_size for place in models),
        "files": [str(place) for place in models],
        "exits": [vars(exit) for exit in early.plan.used],
        "notes": list(early.notes),
    }


def calibration_inputs(model: QuantizedModel, request: FlavourRequest) -> Inputs | list[Feed]:
    """Images, or calls of a model that takes something else.

    Raises:
        InputError: They are missing, cannot be read, or do not fit.
    """
    facts = metadata(model.graph)
    if request.data is not None and is_own(str(request.data)):
        return own_calibration(described(str(request.data)), facts, n_examples=request.n_images)
    feeds = load_feeds(request.data, model, n_calls=request.n_images)
    if feeds is not None:
        return feeds
    return load_calibration(request.data, n_images=request.n_images, metadata=facts)


def _choice_notes(chosen: ChosenRanges) -> list[str]:
    """Which rule gave the ranges, where several were tried."""
    if not chosen.losses:
        return []
    losses = ", ".join(f"{loss:.1%} by {rule}" for rule, loss in chosen.losses.items())
    return [
        f"ranges of activations by {chosen.method}: outputs are off by {losses}, on the calibration inputs"
    ]


def _noise(
    model: QuantizedModel, ranges: ActivationRanges, inputs: Inputs | list[Feed], request: FlavourRequest
) -> tuple[Int8Noise | None, ActivationRanges]:
    """What integers do to the layers, if that was asked for; and the ranges, more where layers were excluded."""
    seven_bits, exclude = request.reduce_range, request.exclude
    if request.loss is not None:
        return exclude_until(
            model,
            ranges,
            inputs,
            request.options,
            loss=request.loss,
            reduce_range=seven_bits,
            exclude=exclude,
        )
    if request.noise:
        noise = measure_noise(model, ranges, inputs, reduce_range=seven_bits, exclude=exclude)
        return replace(noise, excluded=[*exclude]), ranges

    return None, ranges


def _noise_facts(noise: Int8Noise) -> dict[str, Any]:
    layers = [
        {
            "layer": layer.name,
            "operator": layer.operator,
            "noise": layer.noise,
            "own": layer.own,
            "decibels": layer.decibels if layer.noise else None,
        }
        for layer in noise.layers
    ]
    return {"loss": noise.loss, "excluded": noise.excluded, "layers": layers}


def calibrated_ranges(
    model: QuantizedModel,
    inputs: Inputs | list[Feed],
    options: CalibrationOptions,
    exclude: Collection[str] = (),
) -> ActivationRanges:
    """The ranges that the integer flavours need; see `choose_ranges`.

    Raises:
        InputError: The inputs do not fit the model, or nothing is called like an exclusion.
        ModelError: Nothing in it computes in integers.
    """
    return chosen_ranges(model, inputs, options, exclude=exclude).ranges


def chosen_ranges(
    model: QuantizedModel,
    inputs: Inputs | list[Feed],
    options: CalibrationOptions,
    *,
    reduce_range: bool = False,
    exclude: Collection[str] = (),
) -> ChosenRanges:
    """`calibrated_ranges`, and by which rule."""
    new = in_opset(model, MIN_OPSET)  # whose activations have the names that the flavour knows
    return choose_ranges(new, inputs, options, reduce_range=reduce_range, exclude=exclude)
