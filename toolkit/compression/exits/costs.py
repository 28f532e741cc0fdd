"""What it costs to leave at each exit: multiplications, counted in one call of the network."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelpress.toolkit.networks.early_exits import EXITS, EarlyExits, exits_shown, key_of
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.networks.layers import layers_with_weights


@dataclass(frozen=True)
class ExitCosts:
    """In units of the network without exits.

    Attributes:
        until: Of everything that is computed up to each exit, all heads on the way included; the last exit at the end.
        heads: Of each head and of asking there; 0 for the last exit.
        macs: Multiplications of the network without exits, for one example.
    """

    until: tuple[float, ...]
    heads: tuple[float, ...]
    macs: int


def costs_of(network: nn.Module, exits: EarlyExits, inputs: Inputs, *, overhead: float) -> ExitCosts:
    """Count the multiplications of convolutions and linear layers in the order in which a forward pass does them.

    Args:
        network: With these exits; left as it is.
        exits: Of it.
        inputs: One call.
        overhead: Of asking at an exit, beside its head.
    """
    done: dict[str, int] = {}  # by layer
    until: dict[str, int] = {}  # of the network alone, by block
    sizes = {layer.owner: layer.weight[0].numel() for layer in layers_with_weights(network).values()}
    names = {module: name for name, module in network.named_modules()}

    def see(module: nn.Module, _: object, output: object) -> None:
        name = names[module]
        if module in sizes and isinstance(output, Tensor):
            done[name] = done.get(name, 0) + output.numel() // inputs.n_examples * sizes[module]
        if name in exits.after:
            until[name] = sum(done.values())

    hooks = [module.register_forward_hook(see) for module in names if module is not network]
    training = network.training
    try:
        with torch.no_grad(), exits_shown(exits):
            inputs.on(next(network.parameters()).device).call(network.eval())
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()

    own = sum(n for name, n in done.items() if not name.startswith(f"{EXITS}."))
    heads = [
        overhead * own
        + sum(n for name, n in done.items() if name.startswith(f"{EXITS}.heads.{key_of(block)}."))
        for block in exits.after
    ]
    met = [sum(heads[: k + 1]) for k in range(len(heads))]
    reached = [*(until[block] + met[k] for k, block in enumerate(exits.after)), own + sum(heads)]
    return ExitCosts(tuple(n / own for n in reached), (*(n / own for n in heads), 0.0), own)
