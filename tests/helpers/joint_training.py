"""Trains a tiny network and saves it; started alone or by torchrun."""

import sys
from pathlib import Path

import torch
from torch import nn

from modelpress.benchmarks.measures.metrics import TOP1
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.quantization.quantizers import QuantizerSpec
from modelpress.toolkit.data.batches import DeviceSplit
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.recipe import TrainingOptions
from modelpress.toolkit.training.device import choose_device
from modelpress.toolkit.training.evaluate import Judged
from modelpress.toolkit.training.feeds import ImageFeed
from modelpress.toolkit.training.loop import train
from modelpress.toolkit.training.losses import TaskLoss
from modelpress.toolkit.training.team import join_team


def network() -> CompressedNetwork:
    """Two layers with a batch norm, the first masked, both quantized."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    masks = {"0": torch.rand(8, 3, 3, 3) > 0.5}
    quantizers = {
        "0": QuantizerSpec(4, range="mse", learned=True),
        "5": QuantizerSpec(8, symmetric=True),
    }
    return CompressedNetwork(plain, masks=masks, quantizers=quantizers)


def split(n: int) -> DeviceSplit:
    """Random images, padded by 2."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (n, 3, 12, 12), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 4, (n,), generator=generator)
    return DeviceSplit(images, labels, 2, torch.full((3, 1, 1), 1 / 255), torch.zeros(3, 1, 1))


def main(output: Path) -> None:
    """Train for two epochs."""
    options = TrainingOptions(epochs=2, batch=16, lr=0.05, label_smoothing=0.1, average=0.5)
    with join_team("cpu") as team:
        device = choose_device("cpu", bf16=False)
        trained = network()
        history = train(
            trained,
            ImageFeed(split(64), options.batch, device, seed=3, mirror=True),
            options,
            device,
            score=Judged(split(20), split(20).labels.numpy(), TOP1, TaskLoss()),
            progress=Silent(),
            title="test",
            undecayed=trained.grid_parameters(),
            state_path=output.with_suffix(".state") if team.first else None,
        )
        losses = [epoch.loss for epoch in history]
        torch.save({"state": trained.state_dict(), "losses": losses}, f"{output}.{team.rank}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
