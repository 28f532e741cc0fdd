"""The optimiser and its learning rate, as a recipe names them."""

from collections.abc import Mapping, Sequence
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn

from modelpress.toolkit.networks.foreign.nested import State
from modelpress.toolkit.recipe import TrainingOptions

_RISE, _START = 0.3, 25.0  # of one-cycle: share of the steps, and the rate's first value over its highest
_STEPS = ((0.85, 0.01), (0.6, 0.1))  # of step: from that share on, that factor
_PREFIX = "optimiser."


def learning_rate_at(options: TrainingOptions, progress: float) -> float:
    """Learning rate after a fraction `progress` of all steps.

    Linear warm-up over ``options.warmup`` of the steps, then by the schedule: constant; cosine decay to zero
    (Loshchilov and Hutter 2017, arXiv:1608.03983, eq. (5) without restarts); one-cycle (Smith and Topin 2018,
    arXiv:1708.07120, in cosines); or step, as most networks of the field were trained.

    Example:
        >>> options = TrainingOptions(lr=0.1, schedule="step")
        >>> [round(learning_rate_at(options, share), 4) for share in (0.0, 0.5, 0.7, 0.9)]
        [0.1, 0.1, 0.01, 0.001]
    """
    if progress < options.warmup:
        return options.lr * progress / options.warmup

    left = (progress - options.warmup) / (1 - options.warmup)
    match options.schedule:
        case "constant":
            return options.lr
        case "one-cycle":
            return options.lr * _one_cycle(left)
        case "step":
            return options.lr * next((factor for start, factor in _STEPS if left >= start), 1.0)
    return options.lr * 0.5 * (1 + cos(pi * (progress - options.warmup) / (1 - options.warmup)))


def _one_cycle(progress: float) -> float:
    """From 1/25 up to 1, and down to 0."""
    if progress < _RISE:
        return 1 / _START + (1 - 1 / _START) * 0.5 * (1 - cos(pi * progress / _RISE))
    return 0.5 * (1 + cos(pi * (progress - _RISE) / (1 - _RISE)))


def make_optimiser(
    network: nn.Module, options: TrainingOptions, undecayed: Sequence[nn.Parameter]
) -> torch.optim.Optimizer:
    """The recipe's optimiser of all parameters that are trained.

    Args:
        network: Whose.
        options: Which, and its options.
        undecayed: Parameters without weight decay.
    """
    apart = {id(parameter) for parameter in undecayed}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if id(parameter) not in apart]},
        {"params": [parameter for parameter in trained if id(parameter) in apart], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]

    if options.optimizer == "adamw":
        return torch.optim.AdamW(
            groups, lr=options.lr, betas=(options.momentum, 0.999), weight_decay=options.weight_decay
        )
    return torch.optim.SGD(
        groups,
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov,
        weight_decay=options.weight_decay,
    )


def optimiser_state(network: nn.Module, optimiser: torch.optim.Optimizer) -> State:
    """What an optimiser remembers of every parameter, by names for a file."""
    return {
        f"{_PREFIX}{key}.{name}": value
        for name, parameter in network.named_parameters()
        for key, value in optimiser.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(
    network: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Undo `optimiser_state`; tensors of other names are left alone."""
    parameters = dict(network.named_parameters())
    for full, stored in tensors.items():
        if not full.startswith(_PREFIX):
            continue
        key, _, name = full.removeprefix(_PREFIX).partition(".")
        parameter = parameters[name]
        # in the parameter's memory layout; counts of steps are no tensors of its shape
        value = stored if key == "step" else torch.empty_like(parameter).copy_(stored)
        optimiser.state[parameter][key] = value
