from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpress.export.coding.byte_parts import PartReader
from modelpress.export.coding.code_table import CodeTable, Counts
from modelpress.export.coding.core import core, numpy_alone
from modelpress.export.coding.symbol_runs import LANE_SYMBOLS, RunReader, RunWriter
from modelpress.export.coding.varint import pack_varint, unpack_varint, unzigzag, zigzag
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings.kernels.kernel_mask import KernelMaskCoder
from modelpress.export.press.encodings.slab_coder import Slab


@pytest.fixture(params=["numpy", "compiled"])
def way(request):
    """Runs a test with NumPy alone and with the compiled functions."""
    if request.param == "numpy":
        with numpy_alone():
            yield
    elif core() is None:
        pytest.skip("nothing is compiled")
    else:
        yield


def table_for(symbols, lowest=0):
    return CodeTable.for_counts(Counts(lowest, np.bincount(symbols)))


def skewed(n, n_symbols, seed=0):
    rng = np.random.default_rng(seed)
    return np.minimum(rng.geometric(0.3, n) - 1, n_symbols - 1).astype(np.uint16)


@pytest.mark.parametrize("n", [0, 1, 7, 1000, LANE_SYMBOLS, LANE_SYMBOLS + 1, 9 * LANE_SYMBOLS + 17])
@pytest.mark.parametrize("n_symbols", [1, 2, 17, 300])
def test_runs_come_back_one_after_the_other(way, n, n_symbols):
    symbols, other = skewed(n, n_symbols), skewed(50, 5, seed=1)
    table, other_table = table_for(symbols), table_for(other)
    writer = RunWriter()
    for run, code in ((other, other_table), (symbols, table), (other, other_table)):
        writer.add(run - np.uint16(code.lowest), code)
    reader = RunReader(writer.data())
    for run, code in ((other, other_table), (symbols, table), (other, other_table)):
        np.testing.assert_array_equal(reader.take(code, run.size) + code.lowest, run)
    reader.finish()


def test_both_ways_write_the_same_bytes_and_many_lanes_decode_in_step():
    if core() is None:
        pytest.skip("nothing is compiled")
    symbols = skewed(40 * LANE_SYMBOLS + 5, 17)
    table = table_for(symbols)
    streams = []
    for way in (nullcontext(), numpy_alone()):
        with way:
            writer = RunWriter()
            writer.add(symbols - np.uint16(table.lowest), table)
            streams.append(writer.data())
            decoded = RunReader(streams[-1]).take(table, symbols.size)
            np.testing.assert_array_equal(decoded + table.lowest, symbols)
    assert streams[0] == streams[1]


@given(st.binary(max_size=60), st.integers(0, 400), st.lists(st.integers(0, 9), min_size=2, max_size=40))
def test_any_bytes_decode_alike_or_are_refused_alike(stream, count, counts):
    if core() is None:
        pytest.skip("nothing is compiled")
    table = CodeTable.for_counts(Counts(0, np.array(counts, np.int64)))
    outcomes = []
    for way in (nullcontext(), numpy_alone()):
        with way:
            try:
                reader = RunReader(stream)
                outcomes.append((reader.take(table, count).tolist(), reader.position))
            except DamagedArtifact:
                outcomes.append(None)
    assert outcomes[0] == outcomes[1]


def finish_after(reader, table, count):
    reader.take(table, count)
    reader.finish()


def test_lanes_that_do_not_fit_are_refused(way):
    symbols = skewed(5 * LANE_SYMBOLS, 17)
    table = table_for(symbols)
    writer = RunWriter()
    writer.add(symbols, table)
    good = writer.data()
    for at, change in ((0, 1), (1, 4), (9, 200), (len(good) - 1, 128)):
        damaged = bytearray(good)
        damaged[at] ^= change
        reader = RunReader(bytes(damaged))
        with pytest.raises(DamagedArtifact):
            finish_after(reader, table, symbols.size)
    for cut in (3, 9, len(good) - 1):
        with pytest.raises(DamagedArtifact):
            RunReader(good[:cut]).take(table, symbols.size)


def test_bytes_and_integers_start_at_bytes(way):
    table = CodeTable(0, np.array([1, 1], np.uint8))
    writer = RunWriter()
    writer.add(np.array([1, 0, 1], np.uint8), table)
    writer.add_bytes(pack_varint(300) + b"ab")
    reader = RunReader(writer.data())
    assert reader.take(table, 3).tolist() == [1, 0, 1]
    assert reader.take_varint() == 300
    assert reader.take_bytes(2) == b"ab"
    reader.finish()
    damaged = RunReader(b"\xf5ab")
    damaged.take(table, 3)
    with pytest.raises(DamagedArtifact, match="padding bits are not zero"):
        damaged.take_bytes(2)
    with pytest.raises(DamagedArtifact, match="needs 3 bytes more, 2 are left"):
        RunReader(b"ab").take_bytes(3)
    with pytest.raises(DamagedArtifact, match="its symbols take 0"):
        RunReader(b"ab").finish()


def test_symbols_without_a_codeword_are_refused(way):
    with pytest.raises(DamagedArtifact, match="no symbol"):
        RunReader(b"").take(CodeTable(0, np.zeros(0, np.uint8)), 3)


@pytest.mark.parametrize("contexts", [1, 9])
def test_kernels_come_back(way, contexts):
    rng = np.random.default_rng(2)
    levels = (rng.integers(-7, 8, 90_000) * (rng.random(90_000) < 0.3)).astype(np.int16)[:-4]
    coder = KernelMaskCoder(9, 3, contexts)
    tables = [[CodeTable.for_counts(c) for c in group] for group in coder.survey(Slab(levels))]
    runs = RunWriter()
    coder.write(runs, levels, tables)
    reader = RunReader(runs.data())
    np.testing.assert_array_equal(coder.read(reader, levels.size, tables), levels)
    reader.finish()
    with pytest.raises(DamagedArtifact):
        coder.read(RunReader(runs.data()[:-5]), levels.size, tables)


def test_kernel_mask_beyond_the_end_is_refused(way):
    mask, level = CodeTable(256, np.array([1], np.uint8)), CodeTable(1, np.array([1], np.uint8))
    with pytest.raises(DamagedArtifact, match="taps beyond the end"):
        KernelMaskCoder(9, 3, 1).read(RunReader(b""), 8, [[mask], [level]])


@given(st.integers(0, 2**63 - 1))
def test_integers_come_back(value):
    reader = PartReader(pack_varint(value))
    assert unpack_varint(reader, "header") == value
    reader.finish()


@given(st.integers(-(2**40), 2**40))
def test_signed_integers_come_back(value):
    assert unzigzag(zigzag(value)) == value


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff" * 9 + b"\x01"])
def test_damaged_integers_are_refused(data):
    with pytest.raises(DamagedArtifact):
        unpack_varint(PartReader(data), "header")


@pytest.mark.parametrize("data", ["00 81 10", "01 01 02", "02 02 10", "02 02 22", "00 90 08"])
def test_damaged_tables_are_refused(data):
    with pytest.raises(DamagedArtifact):
        CodeTable.read(PartReader(bytes.fromhex(data)))
