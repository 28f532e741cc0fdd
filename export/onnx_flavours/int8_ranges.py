"""Ranges of activations for integers, chosen by what they do to the outputs of the model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan

from modelpress.export.choices import CalibrationMethod
from modelpress.export.onnx_flavours.int8 import Int8Planner
from modelpress.export.onnx_flavours.int8_noise import FloatCalls, output_losses
from modelpress.export.onnx_flavours.int8_storage import with_bytes
from modelpress.export.post_training.calibration import (
    ActivationRanges,
    CalibrationOptions,
    Feed,
    Inputs,
    calibrate_by,
)
from modelpress.export.quantized import QuantizedModel

# clipping helps most networks with rectifiers and ruins some with SiLU: no rule that looks at values alone tells which
TRIED = (CalibrationMethod.MIN_MAX, CalibrationMethod.MSE)


@dataclass(frozen=True)
class ChosenRanges:
    """Ranges, and how they were come by.

    Attributes:
        ranges: Of the activations.
        method: The rule that gave them, never `BEST`.
        losses: Error of the model's outputs over their size, on the calibration inputs, by each rule that was tried;
            empty where one was asked for.
    """

    ranges: ActivationRanges
    method: CalibrationMethod
    losses: Mapping[CalibrationMethod, float] = field(default_factory=dict)


def choose_ranges(
    model: QuantizedModel,
    inputs: Inputs | Sequence[Feed],
    options: CalibrationOptions,
    *,
    reduce_range: bool = False,
    exclude: Collection[str] = (),
) -> ChosenRanges:
    """Calibrate by the method that is asked for; by `BEST`, with the rule whose integer model has the better outputs.

    Args:
        model: Graph and weights, of an opset that the integer flavours take.
        inputs: As for calibration. All of them give the ranges, the first 64 (or 16 calls) choose the rule; fewer
            where their outputs take more than 128 MiB.
        options: How ranges are chosen.
        reduce_range: As for `modelpress.export.onnx_flavours.prepare`.
        exclude: Likewise.

    Raises:
        InputError: The inputs do not fit the model, or nothing is called like an exclusion.
        ModelError: Nothing in it computes in integers, or an activation is not finite.
    """
    wanted = TRIED if options.method is CalibrationMethod.BEST else (options.method,)
    planner = Int8Planner.of(model, reduce_range=reduce_range, exclude=exclude)
    calls = FloatCalls.of(model, inputs)
    watch = calls.keep if len(wanted) > 1 else None
    found = calibrate_by(wanted, model, planner.activations, inputs, options, watch=watch)
    by_rule = dict(zip(wanted, found, strict=True))
    if len(wanted) == 1:
        return ChosenRanges(by_rule[options.method], options.method)

    planned = map(planner.plan, found)
    losses = output_losses(calls, [with_bytes(one, one.weights) for one in planned])
    by_loss = dict(zip(wanted, losses, strict=True))
    best = min(wanted, key=lambda rule: float("inf") if isnan(by_loss[rule]) else by_loss[rule])
    return ChosenRanges(by_rule[best], best, by_loss)
