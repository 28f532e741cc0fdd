"""Activations that are there at the same time never share memory."""

from collections.abc import Iterator

import pytest

from modelpress.export.firmware.arena import Arena, plan_arena
from modelpress.export.firmware.fusing import fuse_sums
from modelpress.export.firmware.network import Conv
from modelpress.export.firmware.reading import read_network
from modelpress.export.onnx_flavours import int8
from tests.export.firmware.test_operators import NETWORKS
from tests.helpers.firmware import Layers


def network_of(model):
    ranges = dict.fromkeys(int8.activations_to_calibrate(model), (-1.0, 1.0))
    return fuse_sums(read_network(int8.plan(model, ranges)))


def overlaps(arena: Arena) -> Iterator[tuple[str, str]]:
    names = list(arena.lives)
    for k, one in enumerate(names):
        for other in names[:k]:
            a, b = arena.planes[one], arena.planes[other]
            first, last = (
                max(arena.lives[n][0] for n in (one, other)),
                min(arena.lives[n][1] for n in (one, other)),
            )
            if first <= last and a.start < b.start + b.size and b.start < a.start + a.size:
                yield other, one


@pytest.mark.parametrize("network", NETWORKS)
def test_what_lives_together_lies_apart(network):
    planned = network_of(network(Layers()))
    arena = plan_arena(planned)
    makers = {operator.output: operator for operator in planned.operators}
    for before, after in overlaps(arena):  # an output in the place of what was read last, element by element
        operator = makers[after]
        assert before in operator.sources
        assert not (isinstance(operator, Conv) and before == operator.sources[0])
        assert arena.planes[before].start == arena.planes[after].start
    assert all(p.start % 4 == 0 and p.start + p.size <= arena.size for p in arena.planes.values())


def test_sum_takes_the_place_of_its_other_term():
    planned = network_of(NETWORKS[0](Layers()))
    arena = plan_arena(planned)
    *_, last = (o for o in planned.operators if isinstance(o, Conv) and o.added is not None)
    assert arena.planes[last.sources[1]].start == arena.planes[last.output].start
