"""The ONNX graph of any PyTorch network, drawn by torch's own exporter, without its weights.

The plain float module is exported, never the one with fake quantization in it, and with nothing folded: batch
normalisation and every weight are still there. A copy is drawn whose parameters and buffers hold numbers that occur
nowhere else, because exporters merge tensors of equal values; these numbers are found in the graph again, and so the
place of every parameter is known beyond doubt, whatever its values are now or later. A network is drawn once.
"""

import copy
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.onnx import TrainingMode

from modelpress.export.errors import ModelError
from modelpress.export.exits.plan import exit_output
from modelpress.export.graphs.conventions import INPUT, IR_VERSION, OPSET, OUTPUT
from modelpress.export.runtime import PROVIDER
from modelpress.toolkit.networks.early_exits import exits_of, show_exits
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.networks.outputs import flat_outputs

Array = npt.NDArray[Any]
_OPSET_OF_NORMS = 17  # the first with LayerNormalization
_DYNAMO_OPSET = 18  # the lowest that torch's newer exporter writes
_REASON_LENGTH = 300


@dataclass(frozen=True)
class Drawing:
    """A network as a graph.

    Attributes:
        graph: The model with an empty initializer list.
        places: By name of the parameter or buffer, in the order of the network: the name that the graph reads it by.
        constants: What else was in that list, by name.
        exporter: Which of torch's exporters drew it.
        batch: The only batch that the graph takes, where the network's code holds it fast; None for any.
    """

    graph: onnx.ModelProto
    places: dict[str, str]
    constants: dict[str, Array]
    exporter: str
    batch: int | None = None


_DRAWN: "WeakKeyDictionary[nn.Module, tuple[object, Drawing]]" = WeakKeyDictionary()


def draw(network: nn.Module, inputs: Inputs) -> Drawing:
    """Export a network and find its parameters in the graph.

    Args:
        network: Left as it is: mode, parameters, hooks and device; early exits are outputs of the graph. Its drawing is
            kept as long as it lives: a network
            whose forward pass is changed after that is not drawn again.
        inputs: One call; the first axis of every tensor in it is the batch, of at least two examples if batches of
            other sizes are to run. Whether they do is tried.

    Raises:
        ModelError: The network cannot be called with these inputs, or torch cannot export it; with the reason.
    """
    key = inputs.signature()
    earlier = _DRAWN.get(network)
    if earlier is not None and earlier[0] == key:
        return earlier[1]

    inputs = inputs.on("cpu")
    marked = _marked_copy(network)
    show_exits(marked)
    outputs = _n_outputs(marked, inputs)
    names = inputs.names()
    only = OUTPUT if names == [INPUT] else "output"
    if (exits := exits_of(marked)) is not None:
        output_names = [only, *map(exit_output, exits.after)]
    else:
        output_names = [only] if outputs == 1 else [f"output{k}" for k in range(outputs)]
    model, exporter = _export(marked, inputs, names, output_names)
    batch = None if _takes_another_batch(model, marked, inputs) else len(inputs.tensors()[0])
    if batch is not None:
        _hold_batch(model.graph, flat_outputs(_called(marked, inputs)), batch)
    drawing = replace(_located(model, marked, exporter), batch=batch)
    _DRAWN[network] = key, drawing
    return drawing


def _marked_copy(network: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation mode, whose parameters and buffers hold numbers that occur nowhere else."""
    try:
        marked = copy.deepcopy(network)
    except Exception as error:  # a user's module may hold anything
        raise ModelError(f"the network cannot be copied: {_reason(error)}") from error
    marked = marked.cpu().float().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in _floats(marked).values():
            noise = torch.rand(tensor.shape, generator=generator)  # positive: variances stay variances
            tensor.copy_((0.5 + noise) * _size(tensor))
    return marked


def _floats(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that hold floating-point numbers, shared ones once."""
    tensors = (*network.named_parameters(), *network.named_buffers())
    return {name: tensor for name, tensor in tensors if tensor.is_floating_point() and tensor.numel()}


def _size(tensor: Tensor) -> float:
    """A typical magnitude, so that activations keep theirs."""
    size = float(tensor.abs().mean())
    return size if 1e-3 < size < 1e3 else 1.0  # also where it is not finite


def _n_outputs(network: nn.Module, inputs: Inputs) -> int:
    try:
        output = _called(network, inputs)
    except Exception as error:  # whatever the user's forward raises
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs.tensors())
        raise ModelError(
            f"the network cannot be called with the example input of shape {shapes}: {_reason(error)}"
        ) from error
    return len(flat_outputs(output))


def _called(network: nn.Module, inputs: Inputs) -> Any:
    with torch.no_grad():
        return inputs.call(network)


def _export(
    network: nn.Module, inputs: Inputs, names: list[str], output_names: list[str]
) -> tuple[onnx.ModelProto, str]:
    """The exported model: by the older exporter, which keeps every name; by the newer where that one cannot."""
    try:
        return _by_tracing(network, inputs, names, output_names), "torchscript"
    except Exception as error:  # torch raises whatever its passes raise
        first = error
    try:
        return _by_dynamo(network, inputs, names, output_names), "dynamo"
    except Exception as error:
        raise ModelError(
            f"torch cannot export the network: {_reason(first)}; nor by its newer exporter: {_reason(error)}"
        ) from first


def _by_tracing(
    network: nn.Module, inputs: Inputs, names: list[str], output_names: list[str]
) -> onnx.ModelProto:
    buffer = io.BytesIO()
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            network,
            (*inputs.arguments, inputs.named) if inputs.named else inputs.arguments,
            buffer,  # type: ignore[arg-type]  # a stream is taken too, though the annotation has paths only
            input_names=names,
            output_names=output_names,
            dynamic_axes={name: {0: "N"} for name in (*names, *output_names)},
            opset_version=_opset(network),
            do_constant_folding=False,
            training=TrainingMode.PRESERVE,
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())


def _by_dynamo(
    network: nn.Module, inputs: Inputs, names: list[str], output_names: list[str]
) -> onnx.ModelProto:
    batch = torch.export.Dim("N", min=1)
    shapes = tuple({0: batch} if isinstance(v, Tensor) else None for v in inputs.arguments)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            inputs.arguments,
            kwargs=inputs.named or None,
            input_names=names,
            output_names=output_names,
            dynamic_shapes=shapes if not inputs.named else None,
            opset_version=_DYNAMO_OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None  # no file was asked for
    model: onnx.ModelProto = program.model_proto
    return model


def _opset(network: nn.Module) -> int:
    norms = any(isinstance(module, nn.LayerNorm) for module in network.modules())
    return _OPSET_OF_NORMS if norms else OPSET


def _takes_another_batch(model: onnx.ModelProto, network: nn.Module, inputs: Inputs) -> bool:
    """Whether the graph gives outputs of the network's own shapes for one example more than it was drawn with.

    Where code asks for ``len(x)``, or makes an ``int`` of a size, exporters write the example's batch down for good.
    """
    more = inputs.with_one_more()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # a failure is an answer here
    feed = {name: tensor.numpy() for name, tensor in zip(more.names(), more.tensors(), strict=True)}
    try:
        expected = flat_outputs(_called(network, more))
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[PROVIDER])
        found: Sequence[Any] = session.run(None, feed)
    except Exception:  # whatever the user's forward or the runtime raises: both mean no
        return False
    return [tuple(a.shape) for a in expected] == [np.shape(b) for b in found]


def _hold_batch(graph: onnx.GraphProto, outputs: Sequence[Tensor], batch: int) -> None:
    """Let inputs and outputs say so, for whoever reads the file."""
    shapes = [*([batch] for _ in graph.input), *(list(tensor.shape[:1]) for tensor in outputs)]
    for value, first in zip((*graph.input, *graph.output), shapes, strict=False):
        axes = value.type.tensor_type.shape.dim
        if axes and first:
            axes[0].dim_value = first[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, no log, no fast paths that have no place in ONNX."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    printed = io.StringIO()  # what the exporter prints of itself is no output of ours
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(printed),
            redirect_stderr(printed),
            _unwritten_stdout(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _unwritten_stdout() -> Iterator[None]:
    """Nothing reaches the process's stdout: where the older exporter gives up, its C++ part prints the whole graph."""
    try:
        kept = os.dup(1)
    except OSError:  # there is no stdout
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _located(model: onnx.ModelProto, marked: nn.Module, exporter: str) -> Drawing:
    """Take the initializers out of the model and tell the parameters among them by their numbers."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    of_shape: dict[tuple[int, ...], list[str]] = {}
    for name, array in arrays.items():
        of_shape.setdefault(array.shape, []).append(name)
    places = {}
    for name, tensor in _floats(marked).items():
        wanted = tensor.detach().numpy()
        candidates = [*([name] if name in arrays else []), *of_shape.get(wanted.shape, [])]
        found = next((other for other in candidates if np.array_equal(arrays[other], wanted)), None)
        if found is not None:
            places[name] = found

    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    del graph.graph.initializer[:]
    taken = set(places.values())
    constants = {name: array for name, array in arrays.items() if name not in taken}
    graph.ir_version = IR_VERSION
    return Drawing(_lean(graph), places, constants, exporter)


def _lean(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what only the exporter's authors read: node names, source lines, shapes of activations."""
    del model.graph.value_info[:], model.metadata_props[:], model.graph.metadata_props[:]
    model.producer_name, model.producer_version, model.doc_string = "modelpress", "", ""
    model.graph.name, model.graph.doc_string = "modelpress", ""
    for node in model.graph.node:
        node.name, node.doc_string = "", ""
        del node.metadata_props[:]
        kept = [attribute for attribute in node.attribute if not _says_nothing(node, attribute)]
        del node.attribute[:]
        node.attribute.extend(kept)
    if not any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        _shorten_names(model.graph)
    return model


def _says_nothing(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> bool:
    """Whether a node without this attribute is the same: exporters write defaults out, at every convolution."""
    match attribute.name:
        case "dilations":
            return set(attribute.ints) == {1}
        case "group":
            return attribute.i == 1
        case "alpha" | "beta" if node.op_type == "Gemm":
            return attribute.f == 1.0
    return False


def _shorten_names(graph: onnx.GraphProto) -> None:
    """Number the activations: exporters call them by the path of their module."""
    outputs = {value.name for value in graph.output}
    made = [name for node in graph.node for name in node.output if name and name not in outputs]
    numbered = {name: f"a{k}" for k, name in enumerate(made)}
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = numbered.get(name, name)


def _reason(error: BaseException) -> str:
    """The first line of what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:_REASON_LENGTH]
