"""Whether a network has seen the held-out images that its thresholds are to be chosen on."""

from typing import Any

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.recipe import Recipe

HELD_OUT = "held_out"  # in the history: how many examples the training left out


def held_out_facts(data: DataSet) -> dict[str, Any]:
    """What a network's history says of the examples that its training left out; nothing where it left out none."""
    return {HELD_OUT: len(data.validation)} if len(data.validation) else {}


def check_unseen(state: NetworkState, recipe: Recipe, data: DataSet) -> None:
    """Refuse a checkpoint that may have been trained on the held-out images: it is surer of them than of any others.

    The images that a data set holds out are the first of a fixed order, so that a network that left out as many or more
    has seen none of them.

    Raises:
        InputError: Its file does not say that it left them out, and the recipe does not either.
    """
    if recipe.model.checkpoint is None or recipe.exits is None or recipe.exits.unseen:
        return
    left_out = state.history.get(HELD_OUT, 0)
    if left_out < len(data.validation):
        told = f"left out {left_out:,}" if left_out else "does not say that its training left any out"
        raise InputError(
            f"exits: thresholds are chosen on {len(data.validation):,} held-out {data.noun}, and "
            f"{recipe.model.checkpoint} {told}: a network that has seen them is too sure of them; "
            "train one with data.validation, or set exits.unseen to true if it was trained without them"
        )
