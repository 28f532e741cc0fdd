"""Pass: train the heads of early exits on a network that was trained before."""

from modelpress.toolkit.compression.exits.holding import Held, only_heads_learn
from modelpress.toolkit.compression.fitting import fit
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.networks.early_exits import exits_of


def train_exits(state: NetworkState, work: Work) -> NetworkState:
    """Train by the recipe's section `exits`: heads and network together, or heads alone; its network file is kept.

    Raises:
        Interrupted: Stopped on request.
    """
    exits, options = exits_of(state.network), work.recipe.exits
    from_scratch = work.recipe.model.checkpoint is None  # the heads were trained with it
    if exits is None or options is None or exits.trained or from_scratch:
        return state

    work.progress.stage("exits")
    if options.training == "joint":
        trained = fit(state, state.compressed(), work, "exits")
    else:
        with only_heads_learn(state.network, exits):
            network = state.compressed()
            trained = fit(state, network, work, "exits", rules=[Held(network, exits)])
    work.keep("exits", trained)
    return trained
