"""A model with early exits in any flavour: as one graph with control flow, and as parts."""

from collections.abc import Collection
from dataclasses import dataclass

import onnx

from modelpress.export.exits.declaring import plan_needed, with_exits_shown
from modelpress.export.exits.graphs import part_models, with_control_flow
from modelpress.export.exits.plan import ExitPlan
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.onnx_flavours import prepare
from modelpress.export.post_training.calibration import ActivationRanges
from modelpress.export.quantized import QuantizedModel, dense_array


@dataclass(frozen=True)
class LeavingEarly:
    """The ONNX models of a network that its examples may leave early.

    Attributes:
        plan: Exits and thresholds.
        one: For one example at a time: it computes no further than the exit by which the example leaves.
        parts: For any batch: what leads from one exit to the next.
        notes: What their user should know, in sentences.
    """

    plan: ExitPlan
    one: onnx.ModelProto
    parts: tuple[onnx.ModelProto, ...]
    notes: tuple[str, ...] = ()


def shown_for_use(model: QuantizedModel) -> QuantizedModel:
    """The model with the outputs of all exits that are used: what is calibrated, and made into a flavour.

    Raises:
        ModelError: It has none.
    """
    return with_exits_shown(model, plan_needed(model))


def leaving_early(
    model: QuantizedModel,
    *,
    flavour: str,
    ranges: ActivationRanges | None = None,
    reduce_range: bool = False,
    exclude: Collection[str] = (),
) -> LeavingEarly:
    """Both forms of a flavour; arguments as of `modelpress.export.onnx_flavours.prepare`.

    Raises:
        InputError: As for `prepare`.
        ModelError: As for `prepare`, or the model has no exits that are used.
    """
    plan = plan_needed(model)
    emission = prepare(
        shown_for_use(model), flavour=flavour, ranges=ranges, reduce_range=reduce_range, exclude=exclude
    )
    made = emission.model
    whole = with_initializers(made.graph, {name: dense_array(t) for name, t in made.tensors.items()})
    return LeavingEarly(plan, with_control_flow(whole, plan), tuple(part_models(whole, plan)), emission.notes)
