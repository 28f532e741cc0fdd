"""Weights rounded at a price per bit, on the network in training: before a finetuning, or in place of one.

What `modelpress pack --rate` does to a file, here with the codes put back into the network: as grids of fixed steps,
masks where a code is zero, and corrected biases, so that training, measuring and every file go on from there.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from modelpress.export.errors import InputError
from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.parts import metadata
from modelpress.export.post_training.calibration import calls_of
from modelpress.export.press.writing import encode_artifact
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor
from modelpress.export.rate.activations import outputs_of
from modelpress.export.rate.divergence import divergence
from modelpress.export.rate.pricing import Priced, Pricing
from modelpress.export.rate.search import lowest_price
from modelpress.export.rate.unfinished import Unfinished, fingerprint_of
from modelpress.toolkit.compression.drawing import draw
from modelpress.toolkit.compression.fitting import training_feed
from modelpress.toolkit.compression.freeze import drawn_model, freeze_state
from modelpress.toolkit.compression.passes.widths import exceptions, spec_of
from modelpress.toolkit.compression.provenance import provenance
from modelpress.toolkit.compression.quantization.quantizers import QuantizerSpec
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.data.own_calibration import calibration_of
from modelpress.toolkit.networks.layers import layers_with_weights
from modelpress.toolkit.training.batch_norm import BATCH, reestimate_batch_norm
from modelpress.toolkit.training.team import ALONE

_BATCH = 64
_PROBED = 256  # inputs that measure sensitivities
_UNPRICED_BITS = 8  # of layers whose weights reach the graph changed: nearest codes
_BIAS = "bias of "  # before the name of a weight, of those that batch norm takes up


def quantized_at_price(state: NetworkState, work: Work) -> NetworkState:
    """Round all layers that the recipe makes no exception of, at its price or at the one of its size.

    Raises:
        InputError: No price reaches the size, a pattern matches no layer, or there are no training examples.
    """
    packing = _Packing.of(state, work)
    priced = packing.at(packing.found())
    result = packing.put(priced)

    n_images = work.recipe.quantize.batch_norm_images
    if n_images:
        result = packing.with_batch_norm(result, n_images)
    packing.unfinished_ends()
    return result


@dataclass(frozen=True)
class _Packing:
    """A network, and its graph at any price.

    Attributes:
        state: Left as it is.
        work: Recipe and data.
        pricing: Of the graph with batch norm apart, so that its tensors are the network's parameters.
        parameters: Names in the graph, by name of the parameter or buffer.
        others: Widths of the layers that have no price.
    """

    state: NetworkState
    work: Work
    pricing: Pricing
    parameters: Mapping[str, str]
    others: Mapping[str, int | str]

    @classmethod
    def of(cls, state: NetworkState, work: Work) -> "_Packing":
        """Draw the network, and measure what its channels are worth."""
        dense = replace(state, quantizers={}, grids={})
        drawn = drawn_model(dense.compressed(), state.inputs, metadata=provenance(dense))
        model = _with_biases(drawn)
        places = draw(state.network, state.inputs).places

        n_images = work.recipe.calibrate.images
        inputs = calibration_of(work.data, metadata(model.graph), n_examples=n_images)
        feeds = calls_of(model, inputs, batch=_BATCH)
        output = work.outputs.get("finetune")
        unfinished = None
        if output is not None:
            unfinished = Unfinished(
                output.with_name(f".{output.stem}.search"), fingerprint_of(model, feeds, {"drawn": True})
            )
        work.progress.note(f"measuring how far the outputs move with each channel, on {len(feeds)} calls")
        pricing = Pricing.of(
            model, feeds, min_elements=1, n_probes=-(-_PROBED // _BATCH), unfinished=unfinished
        )

        others: dict[str, int | str] = exceptions(state, work.recipe.quantize)
        layers = layers_with_weights(state.network)
        known = {layer.weight: layer for layer in pricing.layers}
        for name, layer in layers.items():
            place = places.get(layer.parameter, "")
            if name in others or (
                place in known and known[place].shape == tuple(layer.as_stored(layer.weight).shape)
            ):
                continue
            others[name] = _UNPRICED_BITS
            work.progress.note(
                f"{name}: rounded to the nearest code of {_UNPRICED_BITS} bits: "
                f"{pricing.kept.get(place, 'its weight reaches the graph changed')}"
            )
        chosen = {places[layer.parameter] for name, layer in layers.items() if name not in others}
        if not chosen:
            raise InputError("quantize.layers leaves no layer that could be rounded at a price")
        pricing = replace(pricing, layers=[layer for layer in pricing.layers if layer.weight in chosen])
        return cls(state, work, pricing, places, others)

    def at(self, price: float) -> Priced:
        """The graph at a price."""
        progress = self.work.progress
        progress.start(f"price {price:.3g}", len(self.pricing.layers))
        try:
            return self.pricing.at(price, on_layer=progress.advance)
        finally:
            progress.finish()

    def found(self) -> float:
        """The price that the recipe asks for.

        Raises:
            InputError: No price reaches the size.
        """
        options = self.work.recipe.quantize
        if options.price_bytes is None:
            return options.price
        n_weights = sum(int(np.prod(layer.shape)) for layer in self.pricing.layers)
        found = lowest_price(self._size_at, limit=options.price_bytes, start=0.02 / max(n_weights, 1))
        if found.price is None:
            raise InputError(
                f"quantize.price_bytes: no price reaches {options.price_bytes:,} bytes: the smallest file has "
                f"{found.figure:,.0f} bytes"
            )
        return found.price

    def _size_at(self, price: float) -> float:
        size = len(
            encode_artifact(freeze_state(self.put(self.at(price))), effort=self.work.recipe.pack.effort)
        )
        self.work.progress.note(f"price {price:.3g}: {size:,} bytes")
        return float(size)

    def put(self, priced: Priced) -> NetworkState:
        """A copy of the network with these codes and biases."""
        options = self.work.recipe.quantize
        network = copy.deepcopy(self.state.network)
        values = dict((*network.named_parameters(), *network.named_buffers()))
        quantizers: dict[str, QuantizerSpec] = {}
        grids: dict[str, dict[str, torch.Tensor]] = {}
        masks: dict[str, torch.Tensor] = {}
        bits: dict[str, int | str] = {}

        for name, layer in layers_with_weights(network).items():
            if name in self.others:
                bits[name] = width = self.others[name]
                if width != "float":
                    quantizers[name] = spec_of(int(width), options)
                continue
            tensor = priced.model.tensors[self.parameters[layer.parameter]]
            assert isinstance(tensor, QuantizedTensor)
            bits[name] = tensor.bits
            _copy(values[layer.parameter], tensor.dequantize())
            masks[name] = layer.weight != 0
            quantizers[name], grids[name] = _grid_of(tensor, layer.weight, learned=options.learned)

        self._put_biases(network, values, priced.model.tensors)
        facts = {
            "price": priced.price,
            "estimated_loss": {layer.name: layer.loss for layer in priced.layers},
        }
        history = {**self.state.history, "quantize": bits, "price": facts}
        quantized = replace(
            self.state, network=network, masks=masks, quantizers=quantizers, grids=grids, history=history
        )
        return replace(quantized, grids=quantized.compressed().kept_grids())

    def _put_biases(
        self, network: nn.Module, values: Mapping[str, torch.Tensor], tensors: Mapping[str, Tensor]
    ) -> None:
        """Biases that were corrected; where batch norm follows, its means."""
        means = _means_of(self.pricing.model)
        by_place = {place: name for name, place in self.parameters.items()}
        for layer in self.pricing.layers:
            bias = layer.bias
            if bias is None or bias not in tensors:
                continue
            corrected = np.asarray(tensors[bias], np.float32)
            if bias in by_place:
                _copy(values[by_place[bias]], corrected)
            elif bias in means and means[bias] in by_place:
                mean = values[by_place[means[bias]]]
                with torch.no_grad():
                    mean -= torch.from_numpy(corrected).to(mean)

    def with_batch_norm(self, state: NetworkState, n_images: int) -> NetworkState:
        """With batch-norm statistics measured anew, if the outputs come closer to those in float by it."""
        anew = replace(state, network=copy.deepcopy(state.network))
        work = replace(self.work, device=replace(self.work.device, team=ALONE, channels_last=False))
        feed = training_feed(work, work.recipe.finetune, batch=min(BATCH, len(work.data.train)))
        used = reestimate_batch_norm(anew.compressed(), feed, n_images=n_images)

        before, after = (self._error(each) for each in (state, anew))
        kept = after < before
        self.work.progress.note(
            f"batch-norm statistics {'measured anew' if kept else 'stay'}: error of the outputs {before:.2%}, "
            f"measured anew {after:.2%}"
        )
        if not kept:
            return state
        return replace(anew, history={**anew.history, "batch_norm": {"images": used}})

    def _error(self, state: NetworkState) -> float:
        model = drawn_model(state.compressed(), state.inputs)
        return divergence(self.pricing.outputs, outputs_of(model, self.pricing.feeds)).error

    def unfinished_ends(self) -> None:
        """What was kept for going on is of no use any more."""
        if self.pricing.unfinished is not None:
            self.pricing.unfinished.remove()


def _with_biases(model: QuantizedModel) -> QuantizedModel:
    """The same function with a bias of zeros where batch norm alone follows a convolution: its mean takes it up."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    index = GraphIndex.of_model(graph)
    tensors = dict(model.tensors)
    for node in graph.graph.node:
        readers = [index.nodes[number] for number in index.consumers.get(node.output[0], ())]
        alone = len(readers) == 1 and readers[0].op_type == "BatchNormalization"
        if node.op_type != "Conv" or len(node.input) != 2 or node.input[1] not in tensors or not alone:
            continue
        weight = tensors[node.input[1]]
        bias = f"{_BIAS}{node.input[1]}"
        tensors[bias] = np.zeros(weight.shape[0], np.float32)
        node.input.append(bias)
    return QuantizedModel(graph, tensors)


def _means_of(model: QuantizedModel) -> dict[str, str]:
    """The mean of the batch norm behind each bias that `_with_biases` has added."""
    index = GraphIndex.of_model(model.graph)
    return {
        node.input[2]: index.nodes[next(iter(index.consumers[node.output[0]]))].input[3]
        for node in model.graph.graph.node
        if len(node.input) > 2 and node.input[2].startswith(_BIAS)
    }


def _grid_of(
    tensor: QuantizedTensor, weight: torch.Tensor, *, learned: bool
) -> tuple[QuantizerSpec, dict[str, torch.Tensor]]:
    """The grid of some codes, for a weight with its output channels first."""
    scale = torch.from_numpy(np.array(tensor.scale, np.float32)).to(weight.device)
    spec = QuantizerSpec(
        tensor.bits, symmetric=True, per_channel=bool(scale.ndim), range="mse", learned=learned
    )
    return spec, {"scale": scale}


def _copy(parameter: torch.Tensor, values: npt.NDArray[np.floating]) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(values)).to(parameter))
