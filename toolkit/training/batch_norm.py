"""Batch-norm statistics measured anew, after the weights before them have changed.

The images are cropped and mirrored as in training: the statistics that a network was trained with are those of such
images, and plain ones shift them (measured: they undo the whole gain).

Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2, for why compressed weights shift the statistics; the plain
average over batches is that of Izmailov et al. 2018, arXiv:1803.05407, section 3.
"""

import torch
from torch import nn

from modelpress.toolkit.data.batches import DeviceSplit, EpochPlan

_BATCH = 250


@torch.no_grad()
def reestimate_batch_norm(
    network: nn.Module, split: DeviceSplit, *, n_images: int, seed: int, mirror: bool
) -> int:
    """Replace running means and variances by averages over augmented images, in float32.

    Args:
        network: Left in evaluation mode.
        split: Images to draw from, without repetition.
        n_images: At most so many; whole batches of 250, at least one (or all there are).
        seed: Of the draw.
        mirror: Whether every second image is mirrored.

    Returns:
        Number of images used.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    plan = EpochPlan.draw(split, seed=seed, epoch=0, mirror=mirror)
    size = min(_BATCH, len(split))
    n_batches = max(1, min(n_images, len(split)) // size)

    usual = [norm.momentum for norm in norms]
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over all batches

    for step in range(n_batches):
        network(plan.batch(split, step, size=size)[0])

    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    network.eval()
    return n_batches * size
