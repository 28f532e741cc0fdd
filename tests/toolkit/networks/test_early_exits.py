"""Heads on a network: where they may be, and that the network stays what it is."""

import copy

import pytest
import torch
from torch import nn

from modelpress.export.errors import InputError
from modelpress.toolkit.networks.early_exits import attach_exits, exits_of, exits_shown
from modelpress.toolkit.networks.exit_places import plan_exits
from modelpress.toolkit.networks.inputs import Inputs, image_inputs
from modelpress.toolkit.networks.resnet_cifar import ResNetCifar
from tests.helpers.leaving import block, network


def with_exits(after=(), *, kind="conv", apart=False):
    net = network()
    return net, attach_exits(net, plan_exits(net, image_inputs(), after), kind=kind, apart=apart)


def test_by_default_there_is_an_exit_at_the_end_of_every_stage_but_the_last():
    places = plan_exits(ResNetCifar("resnet20"), image_inputs(), ()).places
    assert [(place.name, place.shape[1:]) for place in places] == [
        ("body_op.2", (16, 32, 32)),
        ("body_op.5", (32, 16, 16)),
    ]


def test_exits_are_met_in_the_order_of_the_network():
    places = plan_exits(network(), image_inputs(), ("2", "1")).places
    assert [place.name for place in places] == ["1", "2"]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.again, self.last = nn.Conv2d(3, 3, 3, padding=1), block(3, 3, 1), nn.Linear(3, 2)

    def forward(self, x):
        return self.last(self.again(self.again(self.first(x))).mean((2, 3)))


@pytest.mark.parametrize(
    ("make", "after", "says"),
    [
        (network, ("1.iner",), "has no module '1.iner'; the nearest are 1.inner"),
        (network, ("",), "has no module ''"),
        (network, ("5",), "no layer but the classifier comes after 5: leaving there would save nothing"),
        (Twice, ("again",), "again is called 2 times in a forward pass; expected once"),
        (lambda: nn.Sequential(block(3, 4, 8), nn.Flatten(), nn.Linear(64, 2)), (), "has only one block"),
        (lambda: nn.Sequential(block(3, 4, 8), block(4, 4, 1)), (), "classifiers that give"),
    ],
    ids=["unknown", "empty", "too late", "twice", "one block", "no classifier"],
)
def test_exits_that_cannot_be_are_refused(make, after, says):
    with pytest.raises(InputError, match=says):
        plan_exits(make(), image_inputs(), after)


def test_rows_of_tokens_have_heads_of_their_means():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    class Tokens(nn.Sequential):
        def forward(self, x):
            return self[2](self[1](self[0](x)).mean(1))

    net = Tokens(layer, copy.deepcopy(layer), nn.Linear(8, 3))
    inputs = Inputs.of(torch.randn(2, 5, 8))
    exits = attach_exits(net, plan_exits(net, inputs, ("0",)), kind="conv", apart=False)
    assert [tuple(logits.shape) for logits in inputs.call(net.train())] == [(2, 3), (2, 3)]
    assert exits.heads["0"].linear.in_features == 8


def test_in_evaluation_the_network_is_what_it_was():
    net, exits = with_exits()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(net.eval()(images), network().eval()(images))
    with exits_shown(exits):
        last, early = net(images)
    assert torch.equal(last, net(images))
    assert early.shape == (2, 10)


def test_a_copy_has_exits_of_its_own():
    net = with_exits()[0]
    other = copy.deepcopy(net)
    with torch.no_grad():
        exits_of(other).heads["1"].linear.bias.fill_(100.0)
    images = torch.randn(2, 3, 32, 32)
    assert other.train()(images)[1].min() > 50
    assert net.train()(images)[1].max() < 50


@pytest.mark.parametrize("apart", [False, True])
def test_heads_move_the_network_only_where_they_are_to(apart):
    net, _ = with_exits(apart=apart)
    _, early = net.train()(torch.randn(4, 3, 32, 32))
    early.sum().backward()
    assert (net[0][0].weight.grad is None) == apart


def test_a_network_with_a_child_of_that_name_is_refused():
    net = network()
    net.add_module("exits", nn.Identity())
    with pytest.raises(InputError, match="something called 'exits' already"):
        attach_exits(net, plan_exits(net, image_inputs(), ("1",)), kind="pool", apart=False)
