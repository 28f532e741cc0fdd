"""What a CUDA device does beside the CPU: the same training, by recorded steps."""

import numpy as np
import pytest
import torch

from modelpress.toolkit.data.batches import to_device
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.recipe import TrainingOptions
from modelpress.toolkit.training.captured import CapturedGradients
from modelpress.toolkit.training.device import choose_device
from modelpress.toolkit.training.feeds import ImageFeed
from modelpress.toolkit.training.loop import train
from modelpress.toolkit.training.rules import TrainingRule
from tests.helpers.training import DIGITS, tiny_network

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

OPTIONS = TrainingOptions(epochs=4, batch=32, lr=0.02, padding=2, average=0.9)


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def trained(*, captures, rules=(), network=None, options=OPTIONS):
    device = choose_device("cuda", bf16=False, captures=captures)
    network = device.place(network or tiny_network())
    split = to_device(DIGITS.train.take(np.arange(160)), DIGITS, device.torch_device, padding=2)
    notes = Notes()
    feed = ImageFeed(split, options.batch, device, seed=1, mirror=False)
    history = train(network, feed, options, device, progress=notes, title="train", rules=rules)
    return network, history, [note for note in notes.notes if "CUDA graphs" in note]


def test_recorded_steps_train_as_plain_ones():
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        plain, plain_history, _ = trained(captures=False)
        recorded, history, notes = trained(captures=True)
    assert not notes
    assert [r.loss for r in history] == pytest.approx([r.loss for r in plain_history], rel=1e-3)
    for name, value in plain.state_dict().items():
        assert torch.allclose(value.float(), recorded.state_dict()[name].float(), atol=1e-3), name


def test_a_step_that_becomes_another_is_recorded_anew():
    class Switch(TrainingRule):
        """Quantizers off, and on after two epochs."""

        def __init__(self, network):
            self.network = network
            network.quantized = False

        def before_step(self, moment):
            due = moment.epoch == 2 and moment.step == 0
            self.network.quantized |= due
            return due

    network = tiny_network()
    recorded, _, notes = trained(captures=True, network=network, rules=[Switch(network)])
    other = tiny_network()
    plain, _, _ = trained(captures=False, network=other, rules=[Switch(other)])
    assert not notes
    for name, value in plain.state_dict().items():
        assert torch.allclose(value.float(), recorded.state_dict()[name].float(), atol=1e-2), name


def test_a_step_that_cannot_be_recorded_is_computed_plainly():
    notes, network = Notes(), torch.nn.Linear(4, 1).cuda()

    def step(inputs, targets):
        network.zero_grad()
        loss = inputs.call(network).square().mean()
        loss.backward()
        float(loss)  # a value that leaves the device
        return loss.detach()

    gradients = CapturedGradients(network, step, notes)
    for _ in range(6):
        assert torch.isfinite(
            gradients(Inputs((torch.randn(8, 4, device="cuda"),)), torch.zeros(8, device="cuda"))
        )
    assert len(notes.notes) == 1
    assert "trains without CUDA graphs" in notes.notes[0]
