from collections import Counter
from math import log2

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from modelpress.export.coding.context_mixing import MAX_LEVEL, ContextModel
from modelpress.export.coding.core import core, numpy_alone
from modelpress.export.errors import DamagedArtifact

Levels = npt.NDArray[np.int16]


@pytest.fixture
def in_python():
    """Runs the loops as plain Python, whatever is compiled."""
    with numpy_alone():
        yield


def smooth_kernels(rows: int, inputs: int, *, seed: int = 0) -> Levels:
    """3x3 kernels whose taps resemble their neighbours, about two thirds of them zero."""
    noise = np.random.default_rng(seed).normal(size=(rows, inputs, 4, 4))
    smooth = noise[..., 1:, 1:] + noise[..., 1:, :-1] + noise[..., :-1, 1:] + noise[..., :-1, :-1]
    return np.trunc(smooth / 2).astype(np.int16).reshape(rows, inputs, 9)


@st.composite
def tensors(draw) -> tuple[Levels, int]:
    """Levels of any small shape, and a kernel width that need not divide the taps."""
    shape = draw(st.tuples(st.integers(0, 5), st.integers(0, 4), st.sampled_from([0, 1, 3, 4, 9, 25])))
    bound = draw(st.sampled_from([1, 2, 8, MAX_LEVEL]))
    zeros = draw(st.floats(0, 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = rng.integers(-bound, bound, shape, endpoint=True) * (rng.random(shape) >= zeros)
    return levels.astype(np.int16), draw(st.sampled_from([1, 2, 3, 5, 50]))


def decode(stream: bytes, like: Levels, *, kernel_width: int, max_level: int = MAX_LEVEL) -> Levels:
    return ContextModel().decode(stream, like.shape, kernel_width=kernel_width, max_level=max_level)


def states_equal(a: ContextModel, b: ContextModel) -> bool:
    return all(map(np.array_equal, a.learned(), b.learned()))


@given(tensor=tensors())
@settings(max_examples=60, deadline=None)
def test_round_trip_is_exact_and_leaves_both_models_alike(tensor):
    levels, kernel_width = tensor
    writer, reader = ContextModel(), ContextModel()
    stream = writer.encode(levels, kernel_width=kernel_width)
    decoded = reader.decode(stream, levels.shape, kernel_width=kernel_width, max_level=MAX_LEVEL)
    assert_array_equal(decoded, levels, strict=True)
    assert states_equal(writer, reader)


@pytest.mark.parametrize("shape", [(0, 3, 9), (3, 0, 9), (3, 3, 0), (0, 0, 0)])
def test_no_levels_need_no_bytes(shape):
    assert ContextModel().encode(np.zeros(shape, np.int16), kernel_width=3) == b""
    with pytest.raises(DamagedArtifact):
        decode(b"\0", np.zeros(shape, np.int16), kernel_width=3)


@pytest.mark.parametrize("level", [0, 1, -1, MAX_LEVEL, -MAX_LEVEL])
def test_one_level_takes_a_few_bytes(level):
    levels = np.full((1, 1, 1), level, np.int16)
    stream = ContextModel().encode(levels, kernel_width=1)
    assert len(stream) <= 3
    assert_array_equal(decode(stream, levels, kernel_width=1), levels)


def test_zeros_take_next_to_nothing():
    stream = ContextModel().encode(np.zeros((16, 64, 9), np.int16), kernel_width=3)
    assert len(stream) < 16 * 64 * 9 / 300


@pytest.mark.parametrize("level", [MAX_LEVEL, -MAX_LEVEL])
def test_extreme_levels_stay_within_64_bits(level):
    levels = np.full((66, 10, 9), level, np.int16)
    levels[::2, ::3] *= -1
    assert_array_equal(decode(ContextModel().encode(levels, kernel_width=3), levels, kernel_width=3), levels)


@pytest.mark.parametrize(("kh", "kw"), [(1, 3), (3, 1), (2, 2), (5, 5), (7, 7)])
def test_kernels_of_other_shapes_come_back(kh, kw):
    levels = np.random.default_rng(1).integers(-3, 3, (6, 5, kh * kw), endpoint=True).astype(np.int16)
    stream = ContextModel().encode(levels, kernel_width=kw)
    assert_array_equal(decode(stream, levels, kernel_width=kw), levels)


def test_more_rows_than_are_remembered_come_back():
    levels = np.random.default_rng(2).integers(-2, 2, (150, 3, 1), endpoint=True).astype(np.int16)
    assert_array_equal(decode(ContextModel().encode(levels, kernel_width=1), levels, kernel_width=1), levels)


def test_known_levels_have_known_bytes():
    levels = smooth_kernels(3, 4, seed=7)
    model = ContextModel()
    first, second = model.encode(levels, kernel_width=3), model.encode(-levels, kernel_width=3)
    assert (first.hex(), second.hex()) == (FIRST, SECOND)
    assert_array_equal(decode(bytes.fromhex(FIRST), levels, kernel_width=3), levels)


FIRST = "c55625bfa5318925542db6352e961e089504"
SECOND = "9b4d25d39bbb0fa23dcb0e05e5b5a1612a"


@given(tensor=tensors())
@settings(max_examples=25, deadline=None)
def test_plain_python_writes_the_same_bytes(tensor):
    if core() is None:
        pytest.skip("nothing is compiled")
    levels, kernel_width = tensor
    compiled = ContextModel()
    stream = compiled.encode(levels, kernel_width=kernel_width)
    with numpy_alone():
        plain = ContextModel()
        assert plain.encode(levels, kernel_width=kernel_width) == stream
        assert states_equal(compiled, plain)
        assert_array_equal(decode(stream, levels, kernel_width=kernel_width), levels)


@pytest.mark.usefixtures("in_python")
def test_plain_python_reports_progress_and_reads_what_it_wrote():
    levels, seen = smooth_kernels(10, 30), []
    stream = ContextModel().encode(levels, kernel_width=3, progress=seen.append)
    model = ContextModel()
    decoded = model.decode(stream, levels.shape, kernel_width=3, max_level=8, progress=seen.append)
    assert_array_equal(decoded, levels)
    assert seen[-1] == levels.size == max(seen)
    assert len(seen) > 4


def test_a_model_that_has_learned_writes_less():
    levels = smooth_kernels(16, 16)
    model = ContextModel()
    first, again = model.encode(levels, kernel_width=3), model.encode(levels, kernel_width=3)
    assert len(again) < 0.97 * len(first)


def test_tensors_of_a_file_are_read_in_order_by_one_model():
    tensors = [smooth_kernels(8, 3), smooth_kernels(4, 8, seed=1), smooth_kernels(9, 4, seed=2)[..., :1]]
    widths = [3, 3, 1]
    writer, reader = ContextModel(), ContextModel()
    streams = [writer.encode(t, kernel_width=w) for t, w in zip(tensors, widths, strict=True)]
    for stream, levels, width in zip(streams, tensors, widths, strict=True):
        decoded = reader.decode(stream, levels.shape, kernel_width=width, max_level=8)
        assert_array_equal(decoded, levels)


def test_a_copy_learns_apart():
    model = ContextModel()
    model.encode(smooth_kernels(4, 4), kernel_width=3)
    twin = model.copy()
    levels = smooth_kernels(4, 4, seed=1)
    expected = twin.encode(levels, kernel_width=3)
    assert not states_equal(model, twin)
    assert model.encode(levels, kernel_width=3) == expected


def test_levels_are_left_as_they_are():
    levels = smooth_kernels(4, 4)
    before = levels.copy()
    levels.flags.writeable = False
    ContextModel().encode(levels, kernel_width=3)
    assert_array_equal(levels, before)


def zero_order_bits(levels: Levels) -> float:
    counts = Counter(levels.ravel().tolist())
    return -sum(n * log2(n / levels.size) for n in counts.values())


def test_kernel_structure_is_worth_more_than_the_best_table():
    levels = smooth_kernels(32, 32)
    stream = ContextModel().encode(levels, kernel_width=3)
    assert 8 * len(stream) < 0.95 * zero_order_bits(levels)


def test_rows_that_combine_a_few_patterns_are_predicted():
    rng = np.random.default_rng(0)
    levels = np.rint(rng.normal(size=(64, 3)) @ rng.normal(size=(3, 300))).astype(np.int16)[..., None]
    stream = ContextModel().encode(levels, kernel_width=1)
    assert 8 * len(stream) < 0.85 * zero_order_bits(levels)


@pytest.mark.parametrize("cut", [3, 5, 40])
def test_truncated_streams_are_refused(cut):
    levels = smooth_kernels(8, 8)
    stream = ContextModel().encode(levels, kernel_width=3)
    with pytest.raises(DamagedArtifact, match="context-mixing stream"):
        decode(stream[:-cut], levels, kernel_width=3)


@pytest.mark.parametrize("cut", [1, 2])
def test_streams_that_miss_the_last_bytes_are_refused_or_the_one_stream_of_other_levels(cut):
    levels = smooth_kernels(8, 8)
    stream = ContextModel().encode(levels, kernel_width=3)
    assert_refused_or_canonical(stream[:-cut], levels.shape, max_level=8)


@pytest.mark.parametrize("tail", [b"\0", b"\1", b"\xff" * 9])
def test_bytes_after_the_end_are_refused(tail):
    levels = smooth_kernels(8, 8)
    with pytest.raises(DamagedArtifact, match="ends at byte"):
        decode(ContextModel().encode(levels, kernel_width=3) + tail, levels, kernel_width=3)


def test_a_magnitude_beyond_the_bound_is_refused():
    levels = smooth_kernels(8, 8)
    stream = ContextModel().encode(levels, kernel_width=3)
    largest = int(np.abs(levels).max())
    assert_array_equal(decode(stream, levels, kernel_width=3, max_level=largest), levels)
    with pytest.raises(DamagedArtifact, match=f"magnitude over {largest - 1}"):
        decode(stream, levels, kernel_width=3, max_level=largest - 1)


def assert_refused_or_canonical(stream: bytes, shape: tuple[int, int, int], *, max_level: int) -> None:
    try:
        levels = ContextModel().decode(stream, shape, kernel_width=3, max_level=max_level)
    except DamagedArtifact:
        return
    assert np.abs(levels).max(initial=0) <= max_level
    assert ContextModel().encode(levels, kernel_width=3) == stream


@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_changed_streams_are_refused_or_are_the_one_stream_of_their_levels(flips):
    levels = smooth_kernels(6, 6)
    stream = bytearray(ContextModel().encode(levels, kernel_width=3))
    for where, mask in flips:
        stream[where % len(stream)] ^= mask
    assert_refused_or_canonical(bytes(stream), levels.shape, max_level=8)


@given(stream=st.binary(max_size=12), taps=st.sampled_from([1, 9]), max_level=st.sampled_from([1, 8, 256]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_refused_or_are_the_one_stream_of_their_levels(stream, taps, max_level):
    assert_refused_or_canonical(stream, (2, 2, taps), max_level=max_level)


def test_levels_beyond_the_largest_cannot_be_written():
    with pytest.raises(ValueError, match=r"-256\.\.256"):
        ContextModel().encode(np.full((1, 1, 1), MAX_LEVEL + 1, np.int16), kernel_width=1)


@pytest.mark.parametrize(("shape", "kernel_width"), [((2, 2), 1), ((1, 1, 9), 0)])
def test_shapes_that_are_none_are_refused(shape, kernel_width):
    with pytest.raises(ValueError, match="kernel width"):
        ContextModel().encode(np.zeros(shape, np.int16), kernel_width=kernel_width)
