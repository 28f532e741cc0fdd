"""A training loop as it is usually written in PyTorch: what the speed of `training.loop` is measured against.

Images are decoded, augmented and collected one by one by the workers of a `DataLoader`; everything is float32 in the
default memory layout; the loss is read back after every step.
"""

import time
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from modelpress.export.errors import InputError
from modelpress.export.extras import how_to_install
from modelpress.toolkit.data.data_set import DataSet, Split
from modelpress.toolkit.recipe import TrainingOptions


class PictureDataset(Dataset[tuple[Tensor, int]]):
    """One picture at a time through a transform, as in `torchvision.datasets.CIFAR10`.

    Args:
        split: Its images are kept as ``(n, H, W, 3)``, so that each is a PIL image without further ado.
        transform: From a PIL image to network input, shape ``(3, H, W)``.
    """

    def __init__(self, split: Split, transform: Any) -> None:
        self.data = np.ascontiguousarray(split.images.transpose(0, 2, 3, 1))
        self.targets = split.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def train_plainly(
    network: nn.Module, images: DataSet, options: TrainingOptions, device: torch.device, *, workers: int
) -> list[float]:
    """Train on all training images, at a constant learning rate.

    Args:
        network: Trained in place.
        images: Only the training split is used.
        options: Epochs, batch size, padding of the crops, and the options of SGD; nothing else is looked at.
        device: The network is moved there once, every batch when its turn comes.
        workers: Processes that load images; 0 loads them in this one. They stay alive between epochs, so that only
            the first one pays for starting them.

    Returns:
        Images per second of every epoch.

    Raises:
        InputError: torchvision is not installed.
    """
    loader = _loader(images, options, workers=workers, pin_memory=device.type == "cuda")
    network.to(device).train()

    criterion = nn.CrossEntropyLoss()
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov,
        weight_decay=options.weight_decay,
    )

    speeds = []
    for _ in range(options.epochs):
        began, loss_sum = time.perf_counter(), 0.0
        for inputs, labels in loader:
            x, y = inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)

            optimiser.zero_grad()
            loss = criterion(network(x), y)
            loss.backward()
            optimiser.step()

            loss_sum += loss.item()
        speeds.append(len(images.train) / (time.perf_counter() - began))

    return speeds


def _loader(
    images: DataSet, options: TrainingOptions, *, workers: int, pin_memory: bool
) -> DataLoader[tuple[Tensor, int]]:
    try:
        from torchvision import transforms
    except ImportError as error:
        raise InputError(
            f"torchvision, which the plain loop needs, is not installed: {how_to_install('train')}"
        ) from error

    side = images.train.images.shape[-1]
    steps = [
        transforms.RandomCrop(side, padding=options.padding),
        *([transforms.RandomHorizontalFlip()] if images.mirrored else []),
        transforms.ToTensor(),
        transforms.Normalize(images.mean, images.std),
    ]

    return DataLoader(
        PictureDataset(images.train, transforms.Compose(steps)),
        batch_size=options.batch,
        shuffle=True,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
    )
