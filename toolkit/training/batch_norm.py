"""Batch-norm statistics measured anew, after the weights before them have changed.

Source: Sun et al. 2019, "Hybrid 8-bit Floating Point", and Nagel et al. 2019, arXiv:1906.04721, section 4.2, for why
compressed weights shift them; the plain average over batches is that of Izmailov et al. 2018, arXiv:1803.05407, section 3.
"""

import torch
from torch import nn

from toolkit.data.batches import DeviceSplit

_BATCH = 500


@torch.no_grad()
def reestimate_batch_norm(network: nn.Module, split: DeviceSplit, *, n_images: int, seed: int) -> int:
    """Replace running means and variances by averages over unchanged images, in float32.

    Args:
        network: Left in evaluation mode.
        split: Images to draw from, without repetition.
        n_images: At most so many; whole batches of 500, at least one (or all there are).
        seed: Of the draw.

    Returns:
        Number of images used.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed)).to(split.labels.device)
    size = min(_BATCH, len(split))
    n_batches = max(1, min(n_images, len(split)) // size)
    usual = [norm.momentum for norm in norms]
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over all batches
    for start in range(0, n_batches * size, size):
        network(split.plain(order[start : start + size]))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    network.eval()
    return n_batches * size
