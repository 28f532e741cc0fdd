"""The graphs that leave early: one with control flow for single examples, and one for every part, for any batch."""

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelpress.export.errors import ModelError
from modelpress.export.exits.cutting import Part, cut
from modelpress.export.exits.declaring import with_plan
from modelpress.export.exits.plan import Exit, ExitPlan, Rule
from modelpress.export.graphs.parts import opset_of

EXIT = "exit"  # the output that says by which exit an example left, counted from 0
PART_METADATA = "modelpress.exits.part"  # of a file that is one part: which of how many, as in "1 of 3"
_LEAST_OPSET = 12  # GreaterOrEqual


def shown_of(model: onnx.ModelProto, plan: ExitPlan) -> list[str]:
    """The outputs of the exits that are used, in the order in which they are met, the last one at the end."""
    return [*(exit.output for exit in plan.used), model.graph.output[0].name]


def with_control_flow(model: onnx.ModelProto, plan: ExitPlan) -> onnx.ModelProto:
    """One graph that computes no further than the exit by which its example leaves.

    Its outputs are the logits of that exit, and its number.

    Args:
        model: The network with the outputs of all used exits.
        plan: Thresholds.

    Raises:
        ModelError: Its opset is too old.
    """
    if opset_of(model) < _LEAST_OPSET:
        raise ModelError(
            f"exits need opset {_LEAST_OPSET}; the model has {opset_of(model)}: convert it with --opset 13"
        )

    logits = model.graph.output[0].name
    parts = cut(_with_last_renamed(model, logits), [*shown_of(model, plan)[:-1], f"{logits}.last"])
    shape = [1, *_sizes(model.graph.output[0])[1:]]
    nodes, stored = _from_part(parts, plan, 0, (logits, EXIT), shape)

    whole = _emptied(with_plan(model, plan))
    whole.graph.node.extend(nodes)
    whole.graph.initializer.extend(stored)
    for value in model.graph.input:
        if any(value.name in part.reads for part in parts):
            whole.graph.input.append(_of_batch(value, 1))
    whole.graph.output.append(helper.make_tensor_value_info(logits, TensorProto.FLOAT, shape))
    whole.graph.output.append(helper.make_tensor_value_info(EXIT, TensorProto.INT64, [1]))
    return whole


def part_models(model: onnx.ModelProto, plan: ExitPlan) -> list[onnx.ModelProto]:
    """One graph for every part, of any batch: the first output is the exit's logits, the others are what is read later.

    Args:
        model: The network with the outputs of all used exits.
        plan: Thresholds.
    """
    parts = cut(model, shown_of(model, plan))
    kinds = _kinds(model)
    given = {value.name for value in model.graph.input}
    models = []

    for k, part in enumerate(parts):
        made = {name for node in part.nodes for name in node.output}
        later = dict.fromkeys(name for other in parts[k + 1 :] for name in other.reads if name in made)
        single = _emptied(with_plan(model, plan))
        single.graph.node.extend(part.nodes)
        single.graph.initializer.extend(_complete(part, parts))
        single.graph.input.extend(kinds[name] for name in part.reads if name in kinds or name in given)
        single.graph.output.extend(kinds[name] for name in dict.fromkeys((part.output, *later)))
        single.metadata_props.add(key=PART_METADATA, value=f"{k + 1} of {len(parts)}")
        models.append(single)
    return models


def _from_part(
    parts: Sequence[Part], plan: ExitPlan, k: int, outputs: tuple[str, str], shape: Sequence[int | None]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """What computes two outputs, logits and the exit's number, from the k-th part on."""
    part, (logits, number) = parts[k], outputs
    if k == len(parts) - 1:
        end = helper.make_node("Identity", [part.output], [logits])
        return [*part.nodes, end, _constant(number, np.array([k], np.int64))], part.initializers

    confident = f"exit.{k}.confident"
    leave = _graph(
        f"leave_{k}",
        [
            helper.make_node("Identity", [part.output], [f"{logits}.at.{k}"]),
            _constant(f"{number}.at.{k}", np.array([k], np.int64)),
        ],
        [],
        (f"{logits}.at.{k}", f"{number}.at.{k}"),
        shape,
    )
    beyond = (f"{logits}.beyond.{k}", f"{number}.beyond.{k}")
    go_on = _graph(f"beyond_{k}", *_from_part(parts, plan, k + 1, beyond, shape), beyond, shape)
    choice = helper.make_node("If", [confident], [logits, number], then_branch=leave, else_branch=go_on)
    asked = _confident(plan.rule, plan.used[k], k, part.output, confident)
    return [*part.nodes, *asked, choice], part.initializers


def _confident(rule: Rule, exit: Exit, k: int, logits: str, result: str) -> Iterable[onnx.NodeProto]:
    """Whether the probabilities of one example, shape (1, classes), are such that it leaves."""
    prefix, n = f"exit.{k}.", 1 if rule == "probability" else 2
    yield helper.make_node("Softmax", [logits], [prefix + "probabilities"], axis=-1)
    yield _constant(prefix + "n", np.array([n], np.int64))
    yield helper.make_node(
        "TopK", [prefix + "probabilities", prefix + "n"], [prefix + "top", prefix + "index"]
    )
    confidence = prefix + "top"
    if rule == "margin":
        yield _constant(prefix + "signs", np.array([[1], [-1]], np.float32))
        yield helper.make_node("MatMul", [confidence, prefix + "signs"], [prefix + "margin"])
        confidence = prefix + "margin"
    yield _constant(prefix + "threshold", np.array([[exit.threshold]], np.float32))
    yield helper.make_node("GreaterOrEqual", [confidence, prefix + "threshold"], [result])


def _graph(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    stored: Sequence[onnx.TensorProto],
    outputs: tuple[str, str],
    shape: Sequence[int | None],
) -> onnx.GraphProto:
    declared = [
        helper.make_tensor_value_info(outputs[0], TensorProto.FLOAT, shape),
        helper.make_tensor_value_info(outputs[1], TensorProto.INT64, [1]),
    ]
    return helper.make_graph(nodes, name, [], declared, stored)


def _constant(name: str, value: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


def _with_last_renamed(model: onnx.ModelProto, logits: str) -> onnx.ModelProto:
    """The last exit's logits under another name: the graph around has an output of theirs."""
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    for node in renamed.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = f"{logits}.last" if name == logits else name
    renamed.graph.output[0].name = f"{logits}.last"
    return renamed


def _complete(part: Part, parts: Sequence[Part]) -> list[onnx.TensorProto]:
    """Its initializers, and large ones that it shares with a part before."""
    read = {name for node in part.nodes for name in node.input}
    own = {tensor.name for tensor in part.initializers}
    shared = [t for other in parts for t in other.initializers if t.name in read - own]
    return [*part.initializers, *shared]


def _kinds(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Type and shape of every activation, with the batch left open.

    Raises:
        ModelError: They cannot be told.
    """
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # onnx raises its own kinds
        raise ModelError(f"the shapes between the exits cannot be told: {error}") from error
    values = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: _of_batch(value, "N") for value in values}


def _of_batch(value: onnx.ValueInfoProto, batch: int | str) -> onnx.ValueInfoProto:
    """The value with this many examples, or a word for any number."""
    changed = onnx.ValueInfoProto()
    changed.CopyFrom(value)
    axes = changed.type.tensor_type.shape.dim
    if axes:
        axes[0].Clear()
        if isinstance(batch, int):
            axes[0].dim_value = batch
        else:
            axes[0].dim_param = batch
    return changed


def _sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    return [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]


def _emptied(model: onnx.ModelProto) -> onnx.ModelProto:
    """All that is said of a model, around a graph without anything."""
    emptied = onnx.ModelProto()
    emptied.CopyFrom(model)
    name = model.graph.name
    emptied.graph.Clear()
    emptied.graph.name = name
    return emptied
