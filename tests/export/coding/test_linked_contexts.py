"""Linked contexts: one stream for its levels, whoever writes and reads it, and never wider than its bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from modelpress.export.coding.context_mixing import ContextModel
from modelpress.export.coding.core import core, numpy_alone
from modelpress.export.errors import DamagedArtifact


@st.composite
def tensors(draw):
    """Levels of any small shape, a kernel width, and bounds that may leave room."""
    shape = draw(st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from([0, 1, 4, 9, 30])))
    lowest, highest = draw(st.sampled_from([(0, 0), (-1, 0), (0, 3), (-2, 1), (-9, 6), (-256, 256)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = rng.integers(lowest, highest, shape, endpoint=True) * (rng.random(shape) < draw(st.floats(0, 1)))
    return levels.astype(np.int16), draw(st.sampled_from([1, 3, 5])), (lowest, highest)


@given(tensor=tensors())
@settings(max_examples=8, deadline=None)
def test_both_ways_write_one_stream_and_read_it_back(tensor):
    levels, kernel_width, bounds = tensor
    streams, learned = [], []
    for way in (True, False) if core() is not None else (False,):
        if way:
            writer, reader = ContextModel(), ContextModel()
        else:
            with numpy_alone():
                writer, reader = ContextModel(), ContextModel()
        # the second stream goes by what the first has taught
        for _ in range(2):
            streams.append(writer.encode(levels, kernel_width=kernel_width, linked=bounds))
            found = reader.decode(streams[-1], levels.shape, kernel_width=kernel_width, linked=bounds)
            assert_array_equal(found, levels, strict=True)
        learned += [writer.learned(), reader.learned()]

    assert streams[:2] == streams[-2:]
    assert all(all(map(np.array_equal, learned[0], other)) for other in learned)


def test_what_bounds_rule_out_takes_nothing():
    model = ContextModel()
    assert model.encode(np.zeros((8, 8, 9), np.int16), kernel_width=3, linked=(0, 0)) == b""
    ones = np.ones((8, 8, 9), np.int16)
    assert len(model.encode(ones, kernel_width=3, linked=(0, 1))) < len(
        ContextModel().encode(ones, kernel_width=3, linked=(-9, 9))
    )


@pytest.mark.parametrize("level", [-3, 2])
def test_levels_outside_the_bounds_are_refused(level):
    with pytest.raises(ValueError, match=r"within -2\.\.1"):
        ContextModel().encode(np.full((1, 1, 1), level, np.int16), kernel_width=1, linked=(-2, 1))


@given(stream=st.binary(max_size=12), taps=st.sampled_from([1, 9]), most=st.sampled_from([1, 8, 256]))
@settings(max_examples=40, deadline=None)
def test_any_bytes_are_refused_or_are_the_one_stream_of_their_levels(stream, taps, most):
    try:
        levels = ContextModel().decode(stream, (2, 2, taps), kernel_width=3, linked=(-most, 1))
    except DamagedArtifact:
        return
    assert -most <= levels.min()
    assert levels.max() <= 1
    assert ContextModel().encode(levels, kernel_width=3, linked=(-most, 1)) == stream
