"""Batch-norm statistics measured anew, after the weights before them have changed.

The images are cropped and mirrored as in training: the statistics that a network was trained with are those of such
images, and plain ones shift them (measured: they undo the whole gain).

Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2, for why compressed weights shift the statistics; the plain
average over batches is that of Izmailov et al. 2018, arXiv:1803.05407, section 3.
"""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from modelpress.toolkit.training.feeds import Feed

BATCH = 250


@torch.no_grad()
def reestimate_batch_norm(network: nn.Module, feed: Feed, *, n_images: int) -> int:
    """Replace running means and variances by averages over augmented images, in float32.

    Args:
        network: Left in evaluation mode.
        feed: Augmented batches, usually of `BATCH` images; those of its first epoch are taken.
        n_images: At most so many; whole batches, at least one.

    Returns:
        Number of images used.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    used = 0

    usual = [norm.momentum for norm in norms]
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over all batches

    for inputs, _ in feed.batches(0, 0):
        if used and used + inputs.n_examples > n_images:
            break
        inputs.call(network)
        used += inputs.n_examples

    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    network.eval()
    return used
