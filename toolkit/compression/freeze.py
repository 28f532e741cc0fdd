"""From a trained torch model to export's `QuantizedModel`; the last file of the chain that knows torch.

The network is read as a graph of its modules and functions (torch.fx), so any network made of the layers
below can be frozen. Batch norm becomes a factor and a bias per channel; integer codes stay what training used.
"""

import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from modelpress.export.errors import ModelError
from modelpress.export.graphs.batch_norm import folded
from modelpress.export.graphs.building import INPUT, GraphBuilder
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.provenance import provenance
from modelpress.toolkit.compression.quantization.quantizers import codes_of
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.layers import n_classes_of
from modelpress.toolkit.networks.resnet_cifar import PadShortcut

FloatArray = npt.NDArray[np.float32]
IMAGE_SHAPE = (3, 32, 32)  # (channels, height, width) of every data set here


def freeze_state(state: NetworkState) -> QuantizedModel:
    """Fold batch norm, take the codes, and describe the origin.

    Raises:
        ModelError: The network holds a layer that cannot be frozen, or a weight that is not finite.
    """
    network = state.compressed()
    network.network.eval()
    return freeze(
        network,
        input_shape=IMAGE_SHAPE,
        n_classes=n_classes_of(network.network),
        metadata=provenance(state),
        half_parameters=state.parameter_precision == "float16",
    )


def freeze(
    network: CompressedNetwork,
    *,
    input_shape: tuple[int, int, int],
    n_classes: int,
    metadata: dict[str, str],
    half_parameters: bool = False,
) -> QuantizedModel:
    """Fold, take the codes, and write the graph.

    Args:
        network: Trained; layers without a quantizer become float32 weights.
        input_shape: ``(channels, height, width)`` of one image.
        n_classes: Number of logits.
        metadata: Becomes the ONNX model's ``metadata_props``.
        half_parameters: The factors and biases of the network have been rounded to float16; take the last
            bit of rounding off that folding them again adds.

    Raises:
        ModelError: The network holds a layer that cannot be frozen, or a weight that is not finite.
    """
    traced = _Tracer().trace(network.network)
    freezer = _Freezer(
        network,
        GraphBuilder("modelpress", input_shape),
        dict(network.network.named_modules()),
        half_parameters,
    )

    names: dict[fx.Node, str] = {}  # of each node's output, in the graph written
    for node in traced.nodes:
        names[node] = freezer.emit(node, names)
        if node.op == "output":
            return freezer.builder.finish(names[node], n_outputs=n_classes, metadata=metadata)
    raise ModelError("the network has no output")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, PadShortcut) or super().is_leaf_module(m, module_qualified_name)


@dataclass
class _Freezer:
    """Translates one traced node at a time."""

    network: CompressedNetwork
    builder: GraphBuilder
    modules: dict[str, nn.Module]
    half_parameters: bool

    def emit(self, node: fx.Node, names: dict[fx.Node, str]) -> str:
        """Add this node to the graph; returns the name of its output."""
        inputs = [names[arg] for arg in node.all_input_nodes]
        if node.op == "placeholder":
            return INPUT
        if node.op == "output":
            return inputs[0]
        if node.op == "call_module":
            return self._module(node, inputs[0])
        if node.op == "call_function":
            return self._function(node, inputs)
        raise ModelError(f"{node.name}: {node.op} {node.target} cannot be exported")

    def _module(self, node: fx.Node, x: str) -> str:  # noqa: PLR0911 - one line per layer kind
        module = self.modules[str(node.target)]
        match module:
            case nn.Conv2d():
                return self._conv(node, module, x)
            case nn.Linear():
                return self.builder.gemm(
                    str(node.target), x, self._weight(str(node.target), None), self._snapped(_bias(module))
                )
            case nn.ReLU():
                return self.builder.relu(x)
            case nn.AdaptiveAvgPool2d(output_size=1 | (1, 1)):
                return self.builder.global_average_pool(x)
            case nn.Identity():
                return x
            case nn.BatchNorm2d() if self._conv_before(node) is not None:
                return x  # folded into the convolution
            case PadShortcut():
                small = self.builder.subsample(x, stride=module.stride)
                return self.builder.pad_channels(small, before=module.before, after=module.after)
        raise ModelError(f"{node.target}: {module} cannot be exported")

    def _function(self, node: fx.Node, inputs: list[str]) -> str:
        if node.target in (operator.add, torch.add) and len(inputs) == 2:
            return self.builder.add(*inputs)
        if node.target in (torch.relu, torch.nn.functional.relu):
            return self.builder.relu(inputs[0])
        if node.target is torch.flatten and node.args[1:] == (1,):
            return self.builder.flatten(inputs[0])
        raise ModelError(f"{node.name}: {node.target} cannot be exported")

    def _conv(self, node: fx.Node, conv: nn.Conv2d, x: str) -> str:
        stride, padding = _square(conv.stride), _square(conv.padding)
        if conv.groups != 1 or conv.dilation != (1, 1) or stride is None or padding is None:
            raise ModelError(
                f"{node.target}: only plain convolutions of equal stride and padding can be exported: {conv}"
            )

        norm = self._norm_after(node)
        factor, bias = (None, _bias(conv)) if norm is None else _fold(str(node.target), norm, conv)
        weight = self._weight(str(node.target), None if factor is None else self._snapped(factor))

        return self.builder.conv(
            str(node.target), x, weight, self._snapped(bias), stride=stride, padding=padding
        )

    def _snapped(self, parameter: FloatArray) -> FloatArray:
        """The nearest float16 where parameters are in half precision; float32 in any case."""
        return parameter.astype(np.float16).astype(np.float32) if self.half_parameters else parameter

    def _weight(self, layer: str, factor: FloatArray | None) -> Tensor:
        if layer in self.network.quantizers:
            return _quantized(self.network, layer, factor)

        weight = self.network.masked(layer).detach().cpu().float().numpy()
        if factor is not None:
            weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        if not np.isfinite(weight).all():
            raise ModelError(f"{layer}: weights hold NaN or infinity")
        return weight

    def _norm_after(self, node: fx.Node) -> nn.BatchNorm2d | None:
        users = list(node.users)
        if len(users) == 1 and users[0].op == "call_module":
            module = self.modules[str(users[0].target)]
            return module if isinstance(module, nn.BatchNorm2d) else None
        return None

    def _conv_before(self, node: fx.Node) -> nn.Conv2d | None:
        source = node.all_input_nodes[0]
        if source.op != "call_module" or len(source.users) != 1:
            return None
        module = self.modules[str(source.target)]
        return module if isinstance(module, nn.Conv2d) else None


def _quantized(network: CompressedNetwork, layer: str, factor: FloatArray | None) -> QuantizedTensor:
    """Codes and scales of a layer; their values are those of the forward pass, bit for bit.

    Raises:
        ModelError: They are not.
    """
    if not torch.isfinite(network.masked(layer)).all():
        raise ModelError(f"{layer}: weights hold NaN or infinity")

    grid = network.grid(layer)
    symmetric = grid.offset is None
    codes = codes_of(network.masked(layer), grid).detach().cpu().numpy()
    mask = network.masks.get(layer)
    kept = np.ones(codes.shape, np.bool_) if mask is None else mask.cpu().numpy()
    codes = np.where(kept, codes, 0).astype(np.int8 if symmetric else np.uint8)

    tensor = QuantizedTensor(
        codes,
        bits=grid.spec.bits,
        scale=_float32(grid.scale),
        offset=None if grid.offset is None else _float32(grid.offset),
        support=None if symmetric or kept.all() else kept,  # code 0 of a symmetric grid is zero itself
    )

    # before the factor of batch norm comes in, the values must be those that training computed with
    trained = network.effective_weight(layer).detach().cpu().numpy()
    if not np.array_equal(tensor.dequantize(), trained):
        raise ModelError(f"{layer}: codes do not give the weights of the forward pass")
    return replace(tensor, channel_scale=factor)


def _fold(layer: str, norm: nn.BatchNorm2d, conv: nn.Conv2d) -> tuple[FloatArray, FloatArray]:
    """Factor and bias per channel of ``norm(conv(x)) = factor * (w * x) + bias``, from float64."""
    assert norm.running_mean is not None  # every BatchNorm2d of a trained network tracks them
    assert norm.running_var is not None
    mean, var = norm.running_mean.double(), norm.running_var.double()
    before = torch.from_numpy(_bias(conv)).to(mean)
    parts = folded(norm.weight.double(), norm.bias.double(), mean, var, epsilon=norm.eps, bias=before)

    factor, bias = map(_float32, parts)
    if not (np.isfinite(factor).all() and np.isfinite(bias).all()):
        raise ModelError(f"{layer}: its batch norm folds to NaN or infinity")
    return factor, bias


def _bias(layer: nn.Conv2d | nn.Linear) -> FloatArray:
    return _float32(layer.bias) if layer.bias is not None else np.zeros(layer.weight.shape[0], np.float32)


def _float32(value: torch.Tensor) -> FloatArray:
    return value.detach().cpu().float().numpy()


def _square(value: Any) -> int | None:
    """The one number of an equal pair."""
    pair = (value, value) if isinstance(value, int) else value
    return int(pair[0]) if isinstance(pair, tuple) and len(set(pair)) == 1 else None
