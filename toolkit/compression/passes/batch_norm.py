"""Pass: measure batch-norm statistics anew with the compressed weights."""

from dataclasses import replace

from modelpress.toolkit.compression.fitting import training_feed
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.training.batch_norm import BATCH, reestimate_batch_norm
from modelpress.toolkit.training.team import ALONE


def batch_norm(state: NetworkState, work: Work) -> NetworkState:
    """Measure on as many training images as the recipe asks for; none, and the trained statistics stay.

    Where weights were rounded at a price and nothing was trained after it, that pass has decided it already.
    """
    options = work.recipe.quantize
    decided = options.priced and not work.recipe.finetune.epochs
    measured = _measured_anew(state, work) if options.batch_norm_images and not decided else state
    work.watch("finetuned", measured)  # the weights and statistics that the file will hold
    return measured


def _measured_anew(state: NetworkState, work: Work) -> NetworkState:
    recipe = work.recipe
    # augmented like the images of the finetuning, whose statistics these replace
    alone = replace(work, device=replace(work.device, team=ALONE, channels_last=False))
    feed = training_feed(alone, recipe.finetune, batch=min(BATCH, len(work.data.train)))
    n_images = reestimate_batch_norm(state.compressed(), feed, n_images=recipe.quantize.batch_norm_images)
    return replace(state, history={**state.history, "batch_norm": {"images": n_images}})
