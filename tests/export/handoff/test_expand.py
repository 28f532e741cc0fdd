"""The script that turns packed weights into plain ones, as the command and by itself."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from modelpress.export.handoff.bundle_files import expand as script
from modelpress.export.handoff.bundle_files.expand import expand
from modelpress.export.onnx_flavours import emit, write_onnx
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate
from modelpress.export.post_training.calibration import calibrate
from modelpress.export.runtime import open_session, run_batched
from tests.export.onnx_flavours.test_stored_weights import FLAGS, bare_model
from tests.helpers.command_line import modelpress
from tests.helpers.models import small_model
from tests.helpers.samples import quantized

IMAGES = np.random.default_rng(0).standard_normal((9, 2, 6, 6)).astype(np.float32)


def flavour_of(model, flavour):
    ranges = calibrate(model, activations_to_calibrate(model), IMAGES) if "int8" in flavour else None
    return emit(model, flavour=flavour, ranges=ranges)


@pytest.mark.parametrize("flavour", ["weight-only", "sparse"])
def test_every_kind_of_weight_is_what_the_artifact_decodes_to(flavour):
    tensors = {
        f"{flags or 'plain'}{bits}{np.dtype(dtype).name}": quantized(
            (6, 5), bits=bits, flags=flags, seed=bits, dtype=dtype
        )
        for bits in (2, 3, 4, 8)
        for flags in FLAGS
        for dtype in (np.float32, np.float16)
    }
    model = emit(bare_model(tensors), flavour=flavour)
    assert expand(model) > 0
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Identity"]
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].tobytes() == tensor.dequantize().tobytes(), name


@pytest.mark.parametrize(
    ("packed", "plain"), [("weight-only", "float"), ("sparse", "float"), ("int8-sparse", "int8")]
)
def test_an_expanded_model_is_the_plain_flavour(packed, plain):
    model, expected = flavour_of(small_model(), packed), flavour_of(small_model(), plain)
    expand(model)
    assert model.metadata_props == expected.metadata_props
    assert sorted(node.op_type for node in model.graph.node) == sorted(
        node.op_type for node in expected.graph.node
    )
    logits = [run_batched(open_session(m.SerializeToString()), IMAGES) for m in (model, expected)]
    assert logits[0].tobytes() == logits[1].tobytes()
    assert np.ptp(logits[0], axis=0).min() > 0.01  # the outputs depend on the inputs


def test_the_script_needs_numpy_and_onnx_alone(tmp_path):
    tree = ast.parse(Path(script.__file__).read_text(), feature_version=(3, 9))
    imported = {
        name.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for name in node.names
    }
    imported |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnx"}

    source, target = tmp_path / "sparse.onnx", tmp_path / "plain.onnx"
    write_onnx(source, small_model(), flavour="sparse")
    done = subprocess.run(
        [sys.executable, script.__file__, source, target], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{target}: {target.stat().st_size:,} bytes")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(source.read_bytes()[:-40])
    done = subprocess.run(
        [sys.executable, script.__file__, damaged, tmp_path / "x.onnx"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot be expanded" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_expands_a_file(tmp_path, monkeypatch, capsys):
    source, target = tmp_path / "sparse.onnx", tmp_path / "plain.onnx"
    write_onnx(source, small_model(), flavour="sparse")
    assert modelpress(monkeypatch, "onnx", "--expand", source, "-o", target) == 0
    assert "plain.onnx" in capsys.readouterr().out
    again = tmp_path / "again.onnx"
    assert modelpress(monkeypatch, "onnx", "--expand", target, "-o", again) == 1
    assert "its weights are plain already" in capsys.readouterr().err.replace("\n", " ")
    assert modelpress(monkeypatch, "onnx", "--expand", source, "--flavour", "int8", "-o", again) == 2
    assert not again.exists()
