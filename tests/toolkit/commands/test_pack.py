"""`modelpress pack` on ONNX models, and back."""

import json
import subprocess
import sys
from urllib.parse import unquote

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper

from modelpress.benchmarks.audits.loss import loss_against
from modelpress.export.graphs.source import open_onnx
from modelpress.export.press.reading import open_artifact, read_artifact
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.runtime import open_session
from tests.helpers.command_line import one_line
from tests.helpers.foreign_onnx import INFO, MODELS, NODE, every_operator, foreign, inputs_for, saved
from tests.helpers.paths import ROOT


@pytest.fixture
def source(tmp_path):
    return saved(every_operator(), tmp_path / "model.onnx")


def outputs_of(path):
    session = open_session(path.read_bytes())
    return session.run(None, inputs_for(session))[0]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("effort", ["fast", "default"])
def test_lossless_gives_back_every_tensor_and_output(call, tmp_path, name, effort):
    path = saved(MODELS[name](), tmp_path / "model.onnx")
    press, back = tmp_path / "model.press", tmp_path / "back.onnx"
    assert call("pack", path, "-o", press, "--lossless", "--effort", effort)[0] == 0
    assert call("unpack", press, "-o", back)[0] == 0
    onnx.checker.check_model(back, full_check=True)
    before, after = open_onnx(path), open_onnx(back)
    assert after.graph == before.graph
    assert list(after.tensors) == list(before.tensors)
    for tensor, array in before.tensors.items():
        assert after.tensors[tensor].tobytes() == array.tobytes()
        assert_array_equal(after.tensors[tensor], array, strict=True)
    assert_array_equal(outputs_of(back), outputs_of(path), strict=True)


@pytest.mark.parametrize("name", ["operators", "float16", "embedding"])
@pytest.mark.parametrize("options", [[], ["--symmetric"], ["--per-tensor", "--bits", "6"]])
def test_quantized_weights_come_back_within_half_a_step(call, tmp_path, name, options):
    path = saved(MODELS[name](), tmp_path / "model.onnx")
    press, back = tmp_path / "model.press", tmp_path / "back.onnx"
    assert call("pack", path, "-o", press, "--min-elements", 50, *options)[0] == 0
    assert call("unpack", press, "-o", back)[0] == 0
    before, after = open_onnx(path).tensors, open_onnx(back).tensors
    packed = read_artifact(press).tensors
    assert any(isinstance(tensor, QuantizedTensor) for tensor in packed.values())
    for tensor, array in before.items():
        if isinstance(packed[tensor], QuantizedTensor):
            assert after[tensor].dtype == array.dtype
            rounding = 0.002 if array.dtype == np.float16 else 1e-6
            half_a_step = np.max(packed[tensor].scale) / 2 + rounding
            assert np.abs(after[tensor].astype("f4") - array.astype("f4")).max() <= half_a_step
        else:
            assert_array_equal(after[tensor], array, strict=True)
    assert np.isfinite(outputs_of(back)).all()


def test_the_report_counts_what_was_done(call, source, tmp_path):
    press = tmp_path / "model.press"
    arguments = ["--bits", 4, "--sparsity", 0.75, "--min-elements", 100, "--json"]
    code, out, _ = call("pack", source, "-o", press, *arguments)
    assert code == 0
    report = json.loads(out)
    assert report["source_bytes"] == source.stat().st_size
    assert report["size_bytes"] == press.stat().st_size
    assert report["ratio"] == report["source_bytes"] / report["size_bytes"]
    assert (report["quantized_tensors"], report["kept_tensors"], report["bits"]) == (5, 3, 4)
    assert report["sparsity"] == pytest.approx(0.75, abs=0.01)
    code, out, err = call("pack", source, "-o", press, "--overwrite", *arguments[:-1])
    assert code == 0, err
    assert "quantized" in out
    assert "75" in out


@pytest.mark.parametrize(
    ("options", "grid"),
    [([], (8, (8,), None)), (["--asymmetric"], (8, (8,), (8,))), (["--bits", "7"], (7, (8,), (8,)))],
)
def test_the_default_is_8_bits_per_channel_around_zero(options, grid, call, source, tmp_path):
    assert call("pack", source, "-o", tmp_path / "m.press", "--min-elements", 0, *options)[0] == 0
    conv = read_artifact(tmp_path / "m.press").tensors["conv.w"]
    assert (conv.bits, conv.scale.shape, None if conv.offset is None else conv.offset.shape) == grid


def test_a_models_own_external_data_are_not_written_over(call, tmp_path):
    path, data = tmp_path / "m.onnx", tmp_path / "w.press"
    onnx.save(every_operator(), path, save_as_external_data=True, location=data.name, size_threshold=0)
    before = data.read_bytes()
    code, _, err = call("pack", path, "-o", data, "--allow-external-data", "--overwrite")
    assert code == 1
    assert "w.press is what is read; writing it would destroy it" in one_line(err)
    assert data.read_bytes() == before


def test_an_artifact_is_compared_with_a_model_whose_data_lie_elsewhere(call, tmp_path):
    path, press = tmp_path / "model.onnx", tmp_path / "m.press"
    onnx.save(every_operator(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert call("pack", path, "-o", press, "--allow-external-data", "--lossless")[0] == 0
    compare = ("verify", press, "--against", path)
    code, _, err = call(*compare)
    assert code == 1
    assert "pass --allow-external-data to follow it" in one_line(err)
    code, out, _ = call(*compare, "--allow-external-data")
    assert code == 0
    assert "all 8 tensors equal those of" in out

    data = bytearray((tmp_path / "w.bin").read_bytes())
    data[-1] ^= 1
    (tmp_path / "w.bin").write_bytes(data)
    code, _, err = call(*compare, "--allow-external-data")
    assert code == 1
    assert "differs from" in one_line(err)


def test_external_data_need_consent(call, tmp_path):
    path, press = tmp_path / "model.onnx", tmp_path / "m.press"
    onnx.save(every_operator(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    code, _, err = call("pack", path, "-o", press)
    assert code == 1
    assert "pass --allow-external-data to follow it" in one_line(err)
    assert not press.exists()
    code, out, _ = call("pack", path, "-o", press, "--lossless", "--allow-external-data", "--json")
    assert code == 0
    assert json.loads(out)["source_bytes"] > (tmp_path / "w.bin").stat().st_size
    with open_artifact(press) as artifact:
        assert next(record.name for record in artifact.records) == "conv.w"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--lossless", "--bits", "4"], "--lossless quantizes nothing, so --bits has no use"),
        (["--lossless", "--per-tensor"], "--lossless quantizes nothing, so --per-channel has no use"),
        (["-c", "recipe.yaml"], "--config is for network files"),
        (["--set", "seed=1"], "--set is for network files"),
    ],
)
def test_options_without_use_are_refused(call, source, arguments, reason):
    code, _, err = call("pack", source, *arguments)
    assert code == 2
    assert reason in one_line(err)


def test_options_for_onnx_models_are_refused_for_networks(call, tmp_path):
    code, _, err = call("pack", tmp_path / "net.safetensors", "--sparsity", "0.5")
    assert code == 2
    assert "--sparsity is for ONNX models (.onnx)" in one_line(err)


def test_an_existing_artifact_is_kept(call, source, tmp_path):
    (tmp_path / "m.press").write_bytes(b"old")
    code, _, err = call("pack", source, "-o", tmp_path / "m.press")
    assert code == 1
    assert "pass --overwrite" in one_line(err)
    assert (tmp_path / "m.press").read_bytes() == b"old"


def test_files_that_are_no_model_are_one_line(call, tmp_path):
    path = tmp_path / "photo.onnx"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    code, _, err = call("pack", path)
    assert code == 1
    assert "photo.onnx" in one_line(err)


def test_infinite_tensors_are_a_note_and_come_back(call, tmp_path):
    mask = np.full((30, 40), -np.inf, np.float32)
    model = foreign([NODE("Add", ["x", "mask"], ["y"])], {"mask": mask}, x=(30, 40), y=(30, 40))
    path, press = saved(model, tmp_path / "m.onnx"), tmp_path / "m.press"
    code, _, err = call("pack", path, "-o", press)
    assert code == 0
    assert "mask: holds NaN or infinity; stored bit for bit, not quantized" in err.replace("\n", " ")
    loss = loss_against(read_artifact(press), model)
    assert (loss.n_tensors, loss.n_equal) == (1, 1)


def test_names_that_would_leave_the_folder_can_be_read_back_from_npz(call, tmp_path):
    names = ["/encoder/layer.0/w", "../up", "a/./b", "100%/x", "back\\slash", "a//b", "plain/name"]
    tensors = {name: np.full((2, k + 1), k, np.float32) for k, name in enumerate(names)}
    path, press = (
        saved(foreign([NODE("Identity", ["x"], ["y"])], tensors), tmp_path / "m.onnx"),
        tmp_path / "m.press",
    )
    assert call("pack", path, "-o", press)[0] == 0
    assert call("unpack", press, "-o", tmp_path / "m.npz")[0] == 0
    arrays = np.load(tmp_path / "m.npz")
    assert {unquote(member): arrays[member].shape for member in arrays.files} == {
        name: array.shape for name, array in tensors.items()
    }
    assert "plain/name" in arrays.files
    for member in arrays.files:
        steps = member.split("/")
        assert not {"", ".", ".."} & set(steps)
        assert "\\" not in member


def test_what_is_left_alone_is_named_where_it_is_much(call, tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "w": rng.standard_normal((40, 40)).astype(np.float32),
        "shift": rng.standard_normal((40, 40)).astype(np.float32),
        "codes": rng.integers(0, 9, (40, 40)).astype(np.uint8),
    }
    nodes = [
        NODE("MatMul", ["x", "w"], ["a"]),
        NODE("Add", ["a", "shift"], ["b"]),
        NODE("Cast", ["codes"], ["c"], to=TensorProto.FLOAT),
        NODE("Add", ["b", "c"], ["y"]),
    ]
    path = saved(foreign(nodes, tensors, x=(40, 40), y=(40, 40)), tmp_path / "m.onnx")
    code, out, err = call("pack", path, "-o", tmp_path / "m.press", "--json")
    assert code == 0
    first, second = json.loads(out)["kept"]
    assert (first["operator"], first["reason"]) == (
        "Add",
        "this operator is not known to have a weight there",
    )
    assert (second["operator"], second["reason"]) == ("Add, Cast", "integers stay what they are")
    share = (first["n_bytes"] + second["n_bytes"]) / json.loads(out)["size_bytes"]
    assert f"{share:.0%}".replace("%", " %") + " of the file" in " ".join(err.split())

    assert "kept as it is" not in call("pack", path, "-o", tmp_path / "l.press", "--lossless")[2]


def test_contradicting_shapes_are_a_note(call, tmp_path):
    model = foreign([NODE("MatMul", ["x", "w"], ["y"])], {"w": np.eye(5, dtype=np.float32)})
    code, _, err = call("pack", saved(model, tmp_path / "m.onnx"), "-o", tmp_path / "m.press")
    assert code == 0
    assert "strict shape inference objects" in err


# A big model in little memory

WIDTH = 2000  # matrices of 16 MB
MEASURED = """
import sys
from pathlib import Path
from modelpress.toolkit.commands.cli import main
import modelpress.toolkit.model_files.packing, modelpress.toolkit.model_files.unpacking
def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
before = peak()
sys.argv[1:] = {arguments!r}
try:
    main()
finally:
    print("grown", peak() - before)
"""


def big_model(path, n_layers):
    values = np.random.default_rng(0).standard_normal((WIDTH, WIDTH), np.float32)
    nodes = [NODE("MatMul", [f"a{i}", f"w{i}"], [f"a{i + 1}"]) for i in range(n_layers)]
    ends = [INFO(name, TensorProto.FLOAT, ("N", WIDTH)) for name in ("a0", f"a{n_layers}")]
    graph = helper.make_graph(nodes, "big", ends[:1], ends[1:])
    for i in range(n_layers):
        tensor = graph.initializer.add(name=f"w{i}", data_type=TensorProto.FLOAT, dims=(WIDTH, WIDTH))
        tensor.raw_data = np.roll(values, i).tobytes()
    return saved(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)


def growth(*arguments):
    """By how much a command grows its process, in bytes."""
    code = MEASURED.format(arguments=[str(a) for a in arguments])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split("grown")[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is told differently elsewhere")
def test_memory_does_not_grow_with_the_number_of_tensors(tmp_path):
    peaks = []
    for n_layers in (2, 10):
        path, press, back = (tmp_path / f"{n_layers}.{kind}" for kind in ("onnx", "press", "back.onnx"))
        size = big_model(path, n_layers).stat().st_size
        packing = growth("pack", path, "-o", press, "--bits", 4, "--effort", "fast")
        peaks.append((packing, growth("unpack", press, "-o", back)))
        assert back.stat().st_size == size
    one_tensor = 4 * WIDTH**2
    for few, many in zip(*peaks, strict=True):
        assert many < few + 2 * one_tensor


def with_a_dead_channel():
    random = np.random.default_rng(0)
    first, second = (random.standard_normal(shape).astype(np.float32) for shape in ((9, 7), (4, 9)))
    first[3] = 0
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["h"], transB=1),
        helper.make_node("Sigmoid", ["h"], ["s"]),
        helper.make_node("Gemm", ["s", "c"], ["y"], transB=1),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k]) for n, k in (("x", 7), ("y", 4))]
    tensors = {"a": first, "b": np.ones(9, np.float32), "c": second}
    stored = [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def test_dead_channels_are_removed_on_request(call, tmp_path):
    path = saved(with_a_dead_channel(), tmp_path / "model.onnx")
    press, back = tmp_path / "model.press", tmp_path / "back.onnx"
    code, _, err = call("pack", path, "-o", press, "--remove-dead-channels")
    assert code == 0
    assert "channels removed: parameters 108 → 100, multiplications 99 → 88" in err
    assert call("unpack", press, "-o", back)[0] == 0
    x = np.random.default_rng(1).standard_normal((5, 7)).astype(np.float32)
    before, after = (open_session(file.read_bytes()).run(None, {"x": x})[0] for file in (path, back))
    assert np.abs(after - before).max() < 1e-5
    assert open_onnx(back).tensors["a"].shape == (8, 7)


def test_nothing_is_removed_from_a_lossless_artifact(call, tmp_path):
    path = saved(with_a_dead_channel(), tmp_path / "model.onnx")
    code, _, err = call("pack", path, "-o", tmp_path / "m.press", "--lossless", "--remove-dead-channels")
    assert code == 2
    assert "--lossless keeps every tensor, --remove-dead-channels does not" in one_line(err)
