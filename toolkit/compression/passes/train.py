"""Pass: train the dense network that is to be compressed."""

from dataclasses import replace

from modelpress.toolkit.compression.exits.unseen import held_out_facts
from modelpress.toolkit.compression.fitting import fit
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work


def train(state: NetworkState, work: Work) -> NetworkState:
    """Train by the recipe's section `train`, resumable; its network file is kept.

    Raises:
        InputError: The recipe distils, and its teacher is not usable.
        Interrupted: Stopped on request.
    """
    if work.recipe.train.distill_weight:
        work = work.with_teacher(state)
    trained = fit(state, state.compressed(), work, "train")
    trained = replace(trained, history={**trained.history, **held_out_facts(work.data)})
    work.keep("train", trained)
    return trained
