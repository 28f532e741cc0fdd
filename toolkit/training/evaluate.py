"""Logits, loss and accuracy in PyTorch, always in float32."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from modelpress.toolkit.data.batches import DeviceSplit, to_device
from modelpress.toolkit.data.image_set import ImageSet
from modelpress.toolkit.training.device import Device

_BATCH = 500


@dataclass(frozen=True)
class Quality:
    """How well a network does on some images.

    Attributes:
        loss: Mean cross-entropy, in nats.
        top1: Fraction of images whose largest logit is the right one.
    """

    loss: float
    top1: float


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


def validation_top1(network: nn.Module, images: ImageSet, device: Device) -> float | None:
    """Accuracy on the held-out split; None without one."""
    if not len(images.validation):
        return None
    return top1(network, to_device(images.validation, images, device.torch_device))


def loss_and_top1(network: nn.Module, split: DeviceSplit) -> Quality:
    """Both from one pass; the loss is averaged in float64, so that small differences survive."""
    logits, labels = torch.from_numpy(predict(network, split)).double(), split.labels.cpu()
    loss = F.cross_entropy(logits, labels)
    return Quality(loss.item(), (logits.argmax(dim=1) == labels).double().mean().item())
