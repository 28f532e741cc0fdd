"""From a trained torch network to export's `QuantizedModel`; the one door between the two.

torch draws the graph of the plain float network (`drawing`); the codes that training used take the place of its
weights, after a comparison bit for bit; batch norm becomes a factor and a bias per channel, as in any ONNX model.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
import torch

from modelpress.export.errors import ModelError
from modelpress.export.exits.declaring import with_exits_hidden
from modelpress.export.graphs.batch_norm import fold_batch_norm
from modelpress.export.graphs.cleaning.constant_folding import with_constants_computed
from modelpress.export.graphs.cleaning.constant_identities import without_constant_identities
from modelpress.export.graphs.cleaning.known_sizes import known_sizes
from modelpress.export.graphs.cleaning.layout import with_weights_in_place
from modelpress.export.grids import codes_of
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor
from modelpress.export.rate.outcomes import with_price
from modelpress.toolkit.compression.drawing import Drawing, draw
from modelpress.toolkit.compression.exits.planned import exit_plan
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.provenance import provenance
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.model_files.shrinking import shrunk_where_equal
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.networks.layers import WeightLayer, layers_with_weights

FloatArray = npt.NDArray[np.float32]


def freeze_state(state: NetworkState, *, note: Callable[[str], None] | None = None) -> QuantizedModel:
    """The network with its codes, and a description of its origin; without the channels that pruning removed whole.

    Early exits are in the graph, but no outputs of it: their plan is in the metadata.

    Args:
        state: The network.
        note: Told what was done with such channels.

    Raises:
        ModelError: As in `freeze`.
    """
    frozen = _priced(
        freeze(
            state.compressed(),
            state.inputs,
            metadata=provenance(state),
            half_parameters=state.parameter_precision == "float16",
        ),
        state,
    )
    if state.removes_channels:
        shrinking = shrunk_where_equal(frozen)
        left_before = "shrink" in state.history and shrinking.model is frozen  # which was told then
        if note is not None and not left_before:
            note(shrinking.words)
        frozen = shrinking.model
    plan = exit_plan(state)
    return frozen if plan is None else with_exits_hidden(frozen, plan)


def _priced(model: QuantizedModel, state: NetworkState) -> QuantizedModel:
    """With what its price was estimated to cost, layer by layer; a training afterwards makes that untrue."""
    facts = state.history.get("price")
    if facts is None or "finetune" in state.history:
        return model
    return with_price(model, facts["price"], facts["estimated_loss"])


def freeze(
    network: CompressedNetwork,
    inputs: Inputs,
    *,
    metadata: dict[str, str],
    half_parameters: bool = False,
) -> QuantizedModel:
    """Draw the graph, put the codes into it, fold what can be folded.

    Args:
        network: Trained; layers without a quantizer become float32 weights. It is left as it is.
        inputs: One call of the network; the first axis of every tensor in it is the batch.
        metadata: Becomes the ONNX model's ``metadata_props``.
        half_parameters: The factors and biases of the network have been rounded to float16; take the last
            bit of rounding off that folding them again adds.

    Raises:
        ModelError: The network cannot be exported, a weight is not finite, or codes do not give the weights of the
            forward pass.
    """
    model = drawn_model(network, inputs, metadata=metadata)
    return fold_batch_norm(model, half=half_parameters)


def drawn_model(
    network: CompressedNetwork, inputs: Inputs, *, metadata: dict[str, str] | None = None
) -> QuantizedModel:
    """The graph with the codes in it, batch norm still apart; as `freeze`.

    Raises:
        ModelError: As in `freeze`.
    """
    layers = layers_with_weights(network.network).values()
    drawing = draw(network.network, inputs)
    tensors = _tensors(network, drawing, {layer.parameter: layer for layer in layers})
    return _cleaned(drawing.graph, tensors, metadata or {})


def _tensors(
    network: CompressedNetwork, drawing: Drawing, layers: dict[str, WeightLayer]
) -> dict[str, Tensor]:
    """Every tensor of the graph, in the order of the network."""
    values = dict((*network.network.named_parameters(), *network.network.named_buffers()))
    tensors: dict[str, Tensor] = {}
    for name, place in drawing.places.items():
        layer = layers.get(name)
        if layer is not None and layer.name in network.quantizers:
            tensors[place] = _quantized(network, layer)
            continue
        value = _float32(values[name] if layer is None else layer.as_stored(network.masked(layer.name)))
        if layer is not None and not np.isfinite(value).all():
            raise ModelError(f"{layer.name}: weights hold NaN or infinity")
        tensors[place] = value
    return tensors | drawing.constants


def _cleaned(graph: onnx.ModelProto, tensors: dict[str, Tensor], metadata: dict[str, str]) -> QuantizedModel:
    """The passes that every drawn graph goes through."""
    named = onnx.ModelProto()
    named.CopyFrom(graph)
    onnx.helper.set_model_props(named, dict(sorted(metadata.items())))
    model = QuantizedModel(named, tensors)
    model = with_constants_computed(model, sizes=known_sizes(model))
    return with_weights_in_place(without_constant_identities(model))


def _quantized(network: CompressedNetwork, layer: WeightLayer) -> QuantizedTensor:
    """Codes and scales of a layer in the layout of its parameter; their values are those of the forward pass.

    Raises:
        ModelError: They are not, bit for bit.
    """
    name = layer.name
    if not torch.isfinite(network.masked(name)).all():
        raise ModelError(f"{name}: weights hold NaN or infinity")
    grid = network.grid(name)
    symmetric = grid.offset is None
    codes = codes_of(network.masked(name), grid).detach().cpu().numpy()
    mask = network.masks.get(name)
    kept = np.ones(codes.shape, np.bool_) if mask is None else mask.cpu().numpy()
    codes = np.where(kept, codes, 0).astype(np.int8 if symmetric else np.uint8)
    tensor = QuantizedTensor(
        codes,
        bits=grid.spec.bits,
        scale=_float32(grid.scale),
        offset=None if grid.offset is None else _float32(grid.offset),
        support=None if symmetric or kept.all() else kept,
    )
    trained = network.effective_weight(name).detach().cpu().numpy()
    if not np.array_equal(tensor.dequantize(), trained):
        raise ModelError(f"{name}: codes do not give the weights of the forward pass")
    if not layer.axis:
        return tensor
    return replace(
        tensor,
        codes=np.ascontiguousarray(np.moveaxis(tensor.codes, 0, layer.axis)),
        support=None
        if tensor.support is None
        else np.ascontiguousarray(np.moveaxis(tensor.support, 0, layer.axis)),
        channel_axis=layer.axis,
    )


def _float32(value: torch.Tensor) -> FloatArray:
    return value.detach().cpu().float().numpy()
