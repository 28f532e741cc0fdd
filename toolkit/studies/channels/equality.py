"""Networks without the channels that pruning removed, held against the masked ones, in torch and in ONNX Runtime."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from modelpress.benchmarks.environment import describe_environment
from modelpress.export.graphs.channels.shrinking import without_dead_channels
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import open_decoded, run_feed
from modelpress.toolkit.compression.freeze import freeze
from modelpress.toolkit.compression.passes.prune import pruned_by_magnitude
from modelpress.toolkit.compression.pruning.shrinking import narrowed
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.networks.making import make_network
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.recipe import PruneOptions
from modelpress.toolkit.studies.networks.shaking import pictures, settled, shaken, spread

SPARSITY = 0.4
_EXAMPLES = 32


def _ours(shortcut: Any) -> Callable[[], nn.Module]:
    return lambda: make_network(
        "resnet20", factory=None, arguments={}, shortcut=shortcut, seed=0, n_classes=10
    )


def _library(name: str, **arguments: int) -> Callable[[], nn.Module]:
    return lambda: make_network(
        f"torchvision/{name}", factory=None, arguments=arguments, shortcut="B", seed=0, n_classes=10
    )


def _transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10
    )


NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet20-a": (_ours("A"), 32),
    "resnet20-b": (_ours("B"), 32),
    "resnet18": (_library("resnet18"), 64),
    "mobilenet_v2": (_library("mobilenet_v2"), 64),
    "vgg11_bn": (_library("vgg11_bn"), 64),
    "efficientnet_b0": (_library("efficientnet_b0"), 64),
    "densenet121": (_library("densenet121"), 64),
    "resnext50": (_library("resnext50_32x4d"), 64),
    "vision-transformer": (_transformer, 32),
}


@dataclass(frozen=True)
class EqualityRow:
    """One network before and after.

    Attributes:
        size: Of its images, in pixels.
        parameters: Before and after.
        macs: Multiplications for one image, before and after.
        torch_difference: Largest of the float32 outputs of both networks in torch, over how far these vary from image
            to image; None where channels stayed.
        onnx_difference: Likewise of both graphs in ONNX Runtime.
        varies: How far the masked network's outputs move from image to image, over the range of all of them: where that
            is nothing, a comparison says nothing.
        words: What was said of the torch network.
    """

    network: str
    size: int
    parameters: tuple[int, int]
    macs: tuple[int, int]
    torch_difference: float | None
    onnx_difference: float
    varies: float
    words: str


def measure_equality(names: Sequence[str], *, progress: Progress) -> dict[str, Any]:
    """Prune, take out, compare.

    Args:
        names: Keys of `NETWORKS`.
        progress: Told of every network.

    Returns:
        The record: environment, options and rows.
    """
    rows = []
    progress.start("channels", len(names))
    for name in names:
        rows.append(measure_row(name))
        progress.advance(name)
    progress.finish()
    return {
        "schema_version": 1,
        "environment": describe_environment(),
        "sparsity": SPARSITY,
        "images": _EXAMPLES,
        "rows": [asdict(row) for row in rows],
    }


def measure_row(name: str) -> EqualityRow:
    """One network: random weights, channels of the smallest magnitude removed, batch-norm statistics taken anew."""
    make, size = NETWORKS[name]
    x = pictures(_EXAMPLES, 3, size, size, torch.Generator().manual_seed(0))
    state = NetworkState(shaken(make()).eval(), None, inputs=Inputs.of(x[:2]))
    state = pruned_by_magnitude(state, PruneOptions(granularity="channel", sparsity=SPARSITY))
    settled(state.network, [x])

    graph = freeze(state.compressed(), state.inputs, metadata={})
    small = without_dead_channels(graph)
    expected = _run(graph, x)
    in_onnx = _apart(expected, _run(small.model, x))
    taken_out = narrowed(state)
    same = taken_out.state is state
    in_torch = None if same else _apart(_called(state, x), _called(taken_out.state, x))
    return EqualityRow(
        name, size, small.parameters, small.macs, in_torch, in_onnx, spread(expected), taken_out.words
    )


def _run(model: QuantizedModel, x: torch.Tensor) -> npt.NDArray[np.float32]:
    (found,) = run_feed(open_decoded(model), {model.graph.graph.input[0].name: x.numpy()}).values()
    return np.asarray(found, np.float32)


@torch.no_grad()
def _called(state: NetworkState, x: torch.Tensor) -> npt.NDArray[np.float32]:
    found: torch.Tensor = state.compressed().eval()(x)
    return found.numpy()


def _apart(expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """The largest difference, over the range in which outputs vary from image to image.

    Example:
        >>> _apart(np.array([[0.0], [2.0]], np.float32), np.array([[0.0], [1.0]], np.float32))
        0.5
    """
    varies = float(np.ptp(expected, axis=0).max())
    return float(np.abs(expected - found).max()) / varies
