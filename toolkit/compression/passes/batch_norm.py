"""Pass: measure batch-norm statistics anew with the compressed weights."""

from dataclasses import replace

from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.data.batches import to_device
from modelpress.toolkit.training.batch_norm import reestimate_batch_norm


def batch_norm(state: NetworkState, work: Work) -> NetworkState:
    """Measure on as many training images as the recipe asks for; none, and the trained statistics stay."""
    measured = _measured_anew(state, work) if work.recipe.quantize.batch_norm_images else state
    work.watch("finetuned", measured)  # the weights and statistics that the file will hold
    return measured


def _measured_anew(state: NetworkState, work: Work) -> NetworkState:
    recipe, images = work.recipe, work.images
    # augmented like the images of the finetuning, whose statistics these replace
    split = to_device(images.train, images, work.device.torch_device, padding=recipe.finetune.padding)
    n_images = reestimate_batch_norm(
        state.compressed(),
        split,
        n_images=recipe.quantize.batch_norm_images,
        seed=recipe.seed,
        mirror=images.mirrored,
    )
    return replace(state, history={**state.history, "batch_norm": {"images": n_images}})
