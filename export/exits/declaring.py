"""The outputs of early exits: hidden, so that a model is the network without them; shown; or taken out."""

from dataclasses import replace

import onnx
from onnx import helper

from modelpress.export.errors import ModelError
from modelpress.export.exits.plan import ExitPlan, plan_of
from modelpress.export.graphs.conventions import EXITS_METADATA
from modelpress.export.graphs.index import GraphIndex, reads_of
from modelpress.export.lazy_tensors import some_tensors
from modelpress.export.quantized import QuantizedModel


def with_exits_hidden(model: QuantizedModel, plan: ExitPlan) -> QuantizedModel:
    """The model with the last exit as its only output; the plan goes into the metadata.

    Args:
        model: All exits are outputs of its graph, the last one first.
        plan: What becomes of the others.
    """
    graph = _copy(model.graph)
    del graph.graph.output[1:]
    return QuantizedModel(with_plan(graph, plan), model.tensors)


def with_plan(graph: onnx.ModelProto, plan: ExitPlan) -> onnx.ModelProto:
    """A copy whose metadata hold this plan, in place of another if need be."""
    changed = _copy(graph)
    kept = {entry.key: entry.value for entry in graph.metadata_props} | {EXITS_METADATA: plan.text()}
    helper.set_model_props(changed, dict(sorted(kept.items())))
    return changed


def with_exits_shown(model: QuantizedModel, plan: ExitPlan) -> QuantizedModel:
    """The model with the outputs of the used exits declared behind its own, and without all other heads."""
    graph = with_plan(model.graph, replace(plan, exits=plan.used))
    shape = graph.graph.output[0].type
    for exit in plan.used:
        value = graph.graph.output.add(name=exit.output)
        value.type.CopyFrom(shape)
    return _without_unread(QuantizedModel(graph, model.tensors))


def without_exits(model: QuantizedModel) -> QuantizedModel:
    """The network alone, without heads and without a word of them; a model without exits as it is.

    Raises:
        ModelError: What the model says of its exits is damaged.
    """
    if plan_of(model.graph) is None:
        return model
    graph = _copy(model.graph)
    rest = {entry.key: entry.value for entry in graph.metadata_props if entry.key != EXITS_METADATA}
    del graph.metadata_props[:]
    helper.set_model_props(graph, rest)
    return _without_unread(QuantizedModel(graph, model.tensors))


def plan_needed(model: QuantizedModel) -> ExitPlan:
    """The plan of a model that is to leave early.

    Raises:
        ModelError: It has no exits, or none by which an example may leave.
    """
    plan = plan_of(model.graph)
    if plan is None:
        raise ModelError(
            "the model has no early exits: train it with a recipe that has the section exits, or leave out --exits"
        )
    if not plan.used:
        raise ModelError(
            "none of the model's early exits pays: no threshold was found within the allowed loss"
        )
    return plan


def _without_unread(model: QuantizedModel) -> QuantizedModel:
    """Without nodes and tensors that no output depends on."""
    index = GraphIndex(model.graph.graph)
    needed, _ = index.ancestors(index.outputs)
    graph = _copy(model.graph)
    del graph.graph.node[:]
    graph.graph.node.extend(index.nodes[number] for number in needed)

    reads = {name for number in needed for name in reads_of(index.nodes[number])} | set(index.outputs)
    inputs = [value for value in graph.graph.input if value.name in reads or value.name not in model.tensors]
    del graph.graph.input[:]
    graph.graph.input.extend(inputs)
    return QuantizedModel(
        graph, some_tensors(model.tensors, [name for name in model.tensors if name in reads])
    )


def _copy(graph: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(graph)
    return copied
