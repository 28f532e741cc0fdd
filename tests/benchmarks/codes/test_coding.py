from dataclasses import replace

import numpy as np
import pytest

from modelpress.benchmarks.codes.ladder import MIXED, size_ladder, total_ladder
from modelpress.benchmarks.codes.large_model import are_equal, large_model, write_large_model
from modelpress.benchmarks.codes.loading import load_times
from modelpress.benchmarks.codes.scaling import scale_point, synthetic_weight
from modelpress.benchmarks.codes.speed import drawn_symbols, mixed_context_speed, stream_speeds
from modelpress.export.coding.core import core
from modelpress.export.errors import InputError, ModelError
from modelpress.export.press.encodings import packed
from modelpress.export.press.writing import encode_artifact
from modelpress.export.quantized import QuantizedModel
from tests.helpers.models import small_model, sparse_model

ENCODINGS = ("bit-packed", "Huffman", "CSR + Huffman", "bitmap + Huffman", "kernel masks + Huffman", MIXED)


@pytest.mark.parametrize("model", [small_model(), sparse_model()], ids=["small", "sparse"])
def test_the_ladder_holds_every_form_and_adds_up(model):
    ladders = size_ladder(model.quantized().items())
    total = total_ladder(ladders)
    assert [ladder.name for ladder in ladders] == list(model.quantized())
    for form in ("float32", "int codes", "CSR", *ENCODINGS, "xz -9e"):
        assert total.rungs[form] == sum(ladder.rungs[form] for ladder in ladders)
    for name, tensor in model.quantized().items():
        ladder = next(part for part in ladders if part.name == name)
        assert ladder.rungs["float32"] == 4 * tensor.codes.size
        assert ladder.rungs["Huffman"] >= ladder.bounds["entropy of levels"]
        assert ladder.rungs["CSR + Huffman"] >= ladder.bounds["entropy of gaps and levels"]


def test_the_ladder_may_leave_mixed_contexts_out():
    (ladder, _) = size_ladder(small_model().quantized().items(), mixed=False)
    assert MIXED not in ladder.rungs


def test_a_form_that_does_not_come_back_is_an_error(monkeypatch):
    tensor = small_model().quantized()["conv.weight"]
    other = replace(tensor, scale=np.float32(3))
    monkeypatch.setattr(packed, "encode", lambda _tensor, encode=packed.encode: encode(other))
    with pytest.raises(ModelError, match="conv.weight: packed does not decode to the same tensor"):
        size_ladder([("conv.weight", tensor)])


def test_stream_speeds_are_of_streams_that_come_back():
    symbols = drawn_symbols(sparse_model(), 100_000)
    speeds = {speed.name: speed for speed in stream_speeds(symbols, rounds=1)}
    assert "Huffman, NumPy" in speeds
    assert ("Huffman, compiled" in speeds) == (core() is not None)
    for name, speed in speeds.items():
        assert 0 < speed.size_bytes < symbols.size, name
        assert speed.encode_mb_per_s > 0
        assert speed.decode_mb_per_s > 0


def test_symbols_are_drawn_with_the_frequencies_of_the_model():
    symbols = drawn_symbols(sparse_model(), 50_000)
    weights = sparse_model().quantized().values()
    zeros = sum(int((~w.nonzero).sum()) for w in weights) / sum(w.codes.size for w in weights)
    assert np.bincount(symbols).max() / symbols.size == pytest.approx(zeros, abs=0.01)
    with pytest.raises(InputError, match="0 different levels"):
        drawn_symbols(QuantizedModel(small_model().graph, {"b": np.ones(3, np.float32)}), 10)


def test_loading_and_mixed_contexts_are_timed(tmp_path):
    times = load_times(small_model(), tmp_path, rounds=1, fresh_rounds=1)
    assert times[0].name == "float32 ONNX file"
    assert len(times) == 4
    first = times[0]
    assert {first.ratio, first.fresh_cpu_ratio, first.process_ratio, first.process_cpu_ratio} == {1}
    assert all(min(load.fresh_cpu_ratio, load.process_ratio, load.process_cpu_ratio) > 0 for load in times)
    assert times[2].size_bytes == len(encode_artifact(small_model()))
    assert all(speed > 0 for speed in mixed_context_speed(small_model(), rounds=1))


def test_synthetic_weights_are_what_they_say():
    weight = synthetic_weight(100_000)
    assert abs(weight.codes.size - 100_000) < 64 * 9
    assert 1 - weight.support.mean() == pytest.approx(0.7, abs=0.01)
    assert weight.equals(synthetic_weight(100_000))


@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_scaling_is_measured_in_a_process_of_its_own(direction):
    point = scale_point(direction, 20_000, "fast")
    assert point.direction == direction
    assert point.n_weights == pytest.approx(20_000, rel=0.05)
    assert point.seconds > 0
    assert point.nanoseconds_per_weight == pytest.approx(1e9 * point.seconds / point.n_weights)
    assert point.extra_mb < 256
    assert 0 < point.size_bytes < 20_000


def test_a_model_with_its_weights_in_another_file_goes_through_the_chain(tmp_path):
    found = large_model(tmp_path, n_tensors=3, effort="fast", width=40)
    assert found.equal
    assert [step.command for step in found.steps] == ["pack", "verify", "unpack"]
    assert all(step.seconds > 0 and step.peak_mb > 10 for step in found.steps)
    assert found.model_bytes > 3 * found.tensor_bytes == 3 * 4 * 40 * 40


def test_a_tensor_that_comes_back_changed_is_not_equal(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        write_large_model(tmp_path / name, n_tensors=2, width=8)
    (tmp_path / "b.onnx").write_bytes((tmp_path / "b.onnx").read_bytes().replace(b"b.onnx.", b"a.onnx."))
    assert are_equal(tmp_path / "a.onnx", tmp_path / "b.onnx")

    data = bytearray((tmp_path / "a.onnx.data").read_bytes())
    data[7] ^= 1
    (tmp_path / "b.onnx.data").write_bytes(data)
    (tmp_path / "b.onnx").write_bytes((tmp_path / "b.onnx").read_bytes().replace(b"a.onnx.", b"b.onnx."))
    assert not are_equal(tmp_path / "a.onnx", tmp_path / "b.onnx")
