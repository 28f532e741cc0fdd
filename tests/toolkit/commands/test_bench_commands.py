import json
import lzma

import numpy as np
import pytest

from modelpress.export.press.writing import write_artifact
from modelpress.export.quantized import QuantizedTensor
from tests.helpers.command_line import one_line
from tests.helpers.foreign_onnx import NODE, foreign, saved
from tests.helpers.models import small_model, sparse_model


@pytest.fixture
def artifact(tmp_path):
    write_artifact(tmp_path / "model.press", sparse_model())
    return tmp_path / "model.press"


def test_bench_size_prints_every_form_and_draws(artifact, tmp_path, call):
    code, out, err = call("bench", "size", artifact, "--json", "--plot", tmp_path / "ladder.svg")
    assert code == 0, err
    (facts,) = json.loads(out)
    _, shown, _ = call("bench", "size", artifact)
    for word in ("mixed contexts", "kernel masks + Huffman", "as stored", "whole file", "bound: entropy"):
        assert word in shown
    assert facts["all"]["whole file"] == artifact.stat().st_size == facts["size_bytes"]
    assert facts["all"]["weights"] == sum(tensor["weights"] for tensor in facts["tensors"])
    assert "<svg" in (tmp_path / "ladder.svg").read_text()


def test_bench_size_needs_quantized_tensors(tmp_path, call):
    import numpy as np

    from modelpress.export.quantized import QuantizedModel

    write_artifact(tmp_path / "m.press", QuantizedModel(small_model().graph, {"b": np.ones(3, np.float32)}))
    code, _, err = call("bench", "size", tmp_path / "m.press")
    assert code == 1
    assert "no quantized tensor" in one_line(err.splitlines()[-1])


def test_bench_coding_and_scaling_leave_json(artifact, tmp_path, call):
    code, _, err = call(
        "bench", "coding", artifact, "--symbols", 20000, "--rounds", 1, "-o", tmp_path / "c.json"
    )
    assert code == 0, err
    facts = json.loads((tmp_path / "c.json").read_text())
    assert {load["name"] for load in facts["loading"]} >= {"float32 ONNX file", "artifact, effort max"}
    assert "numpy" in json.dumps(facts["environment"])
    small = ("--weights", 10000, "--effort", "fast", "--rounds", 1)
    code, _, err = call("bench", "scaling", *small, "-o", tmp_path / "s.json")
    assert code == 0, err
    points = json.loads((tmp_path / "s.json").read_text())["points"]
    assert [point["direction"] for point in points] == ["encode", "decode"]


def test_bench_size_packs_anew_beside_nncodec(artifact, tmp_path, call):
    (facts,) = json.loads(call("bench", "size", artifact, "--json")[1])
    levels = facts["all"]["weights"]
    tensors = [tensor for tensor in sparse_model().tensors.values() if isinstance(tensor, QuantizedTensor)]
    zeros = sum(int((t.codes == 0 if t.support is None else ~t.support).sum()) for t in tensors)
    entry = {"file": "net-model.npz", "codes": levels, "zeros": zeros, "layer_name_bytes": 35}
    record, output = tmp_path / "peers.json", tmp_path / "sizes.json"
    record.write_text(json.dumps({"files": [{**entry, "bytes": {"nncodec_file": 1035}}]}))
    code, _, err = call("bench", "size", artifact, "--peers", record, "-o", output)
    assert code == 0, err

    (row,) = json.loads(output.read_text())["rows"]
    assert row["nncodec_without_names"] == 1000
    assert row["default"]["whole_file"] == artifact.stat().st_size
    for effort in ("default", "max"):
        found = row[effort]
        assert found["weights"] == sum(found["parts"].values()) - found["parts"]["scales"]
        assert found["of_nncodec"] == found["weights"] / 1000
    assert row["ladder_with_scales"]["weights"] == levels

    record.write_text(json.dumps({"files": [{**entry, "zeros": zeros + 1, "bytes": {"nncodec_file": 1035}}]}))
    code, _, err = call("bench", "size", artifact, "--peers", record, "--plot", tmp_path / "ladder.svg")
    assert (code, "give one of them" in one_line(err)) == (2, True)

    code, _, err = call("bench", "size", artifact, "--peers", record)
    assert code == 1
    assert "of other weights" in one_line(err)


def test_bench_archives_compares_whole_files(tmp_path, call):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 64)).astype(np.float32) * (rng.random((64, 64)) < 0.3)
    model = foreign([NODE("MatMul", ["x", "w"], ["y"])], {"w": weight})
    saved(model, tmp_path / "m.onnx")
    code, out, err = call("bench", "archives", tmp_path / "m.onnx", "-o", tmp_path / "a.json")
    assert code == 0, err
    assert "xz -9e" in out
    (file,) = json.loads((tmp_path / "a.json").read_text())["files"]
    data = (tmp_path / "m.onnx").read_bytes()
    assert (file["file"], file["original"]) == ("m.onnx", len(data))
    assert file["xz"] == len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    assert file["artifact"] < min(file["xz"], file["zstandard"] or file["xz"])


def test_bench_archives_goes_on_with_files_that_are_not_in_the_record(tmp_path, call):
    for name in ("a", "b"):
        weight = np.full((8, 8), ord(name), np.float32)
        saved(foreign([NODE("MatMul", ["x", "w"], ["y"])], {"w": weight}), tmp_path / f"{name}.onnx")
    record = tmp_path / "r.json"
    assert call("bench", "archives", tmp_path / "a.onnx", "-o", record)[0] == 0
    facts = json.loads(record.read_text())
    facts["files"][0]["xz"] = 7  # tells whether it is measured again
    record.write_text(json.dumps(facts))

    code, _, err = call(
        "bench", "archives", tmp_path / "a.onnx", tmp_path / "b.onnx", "-o", record, "--resume"
    )
    assert code == 0, err
    kept, new = json.loads(record.read_text())["files"]
    assert kept == facts["files"][0]
    assert new["file"] == "b.onnx"

    code, _, err = call("bench", "archives", tmp_path / "a.onnx", "-o", record, "--resume", "--effort", "max")
    assert code == 1
    assert "is of effort default, not max" in one_line(err)


@pytest.mark.parametrize(
    ("arguments", "reason", "expected"),
    [
        (("size", "FILE", "--plot", "x.png"), "ends in .svg", 2),
        (("scaling", "--weights", "many"), "expected positive whole numbers", 2),
        (("size", "missing.press"), "cannot be read", 1),
    ],
)
def test_bad_options_are_one_line(artifact, arguments, reason, expected, call):
    code, out, err = call("bench", *[artifact if a == "FILE" else a for a in arguments])
    assert code == expected
    assert out == ""
    assert reason in one_line(err)


def test_files_is_the_bench_command_that_needs_no_name(artifact, call):
    code, out, err = call("bench", "--batch", 1, "--threads", 1, "--rounds", 1, artifact)
    assert code == 0, err
    assert "model.press" in out
