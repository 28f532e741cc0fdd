"""Logits and accuracy in PyTorch, always in float32."""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from toolkit.data.batches import DeviceSplit

_BATCH = 500


@torch.no_grad()
def predict(network: nn.Module, split: DeviceSplit) -> npt.NDArray[np.float32]:
    """Logits of all images in order, shape ``(n, classes)``; the network is left in evaluation mode."""
    network.eval()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # full float32 on GPUs too
        logits = torch.cat([network(images) for images, _ in split.in_order(_BATCH)])
    return logits.float().cpu().numpy()


def top1(network: nn.Module, split: DeviceSplit) -> float:
    """Fraction of images whose largest logit is the right one."""
    labels = split.labels.cpu().numpy()
    return float(np.mean(predict(network, split).argmax(axis=1) == labels))
