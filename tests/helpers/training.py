"""A tiny network, a few digits, and trainings of them."""

import os
import signal

import numpy as np
import torch
from torch import nn

from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.pruning.magnitude import prune_global
from modelpress.toolkit.compression.quantization.quantizers import QuantizerSpec
from modelpress.toolkit.data.batches import to_device
from modelpress.toolkit.data.digits import load_digits
from modelpress.toolkit.networks.layers import weight_layers
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.recipe import TrainingOptions
from modelpress.toolkit.training.device import choose_device
from modelpress.toolkit.training.evaluate import Judged
from modelpress.toolkit.training.feeds import ImageFeed
from modelpress.toolkit.training.loop import train

CPU = choose_device("cpu", bf16=False)
OPTIONS = TrainingOptions(epochs=3, batch=32, lr=0.02, padding=2)
DIGITS = load_digits().hold_out(0.1)
TRAIN = to_device(DIGITS.train.take(np.arange(160)), DIGITS, CPU.torch_device, padding=2)
VALIDATION = Judged.of(DIGITS.validation.take(np.arange(40)), DIGITS, CPU.torch_device)


def tiny_network() -> CompressedNetwork:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=4),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 10),
    )
    masks = prune_global(weight_layers(network), sparsity=0.5)
    return CompressedNetwork(network, masks=masks, quantizers={"0": QuantizerSpec(4)})


def fit(network, options=OPTIONS, *, progress=None, **arguments):
    return train(
        network,
        ImageFeed(TRAIN, options.batch, CPU, seed=1, mirror=False),
        options,
        CPU,
        score=VALIDATION,
        progress=progress or Silent(),
        title="train",
        **arguments,
    )


def weights_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


class SignalAt(Silent):
    """Sends a signal to this process after so many steps."""

    def __init__(self, step, number=signal.SIGTERM):
        self.left, self.number = step, number

    def advance(self, detail=""):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
