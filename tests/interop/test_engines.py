"""Every flavour in every engine that is there; in an environment of its own, by `make test-interop`."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from modelpress.benchmarks.runtimes.engines import NODE_MODULES, check_engines
from modelpress.export.graphs.entering.opset import in_opset
from modelpress.export.handoff.bundle_files.expand import expand
from modelpress.export.onnx_flavours import FLAVOURS, emit
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate
from modelpress.export.post_training.calibration import calibrate
from modelpress.export.post_training.rounding import PostTraining, quantize_weight
from modelpress.toolkit import api
from modelpress.toolkit.commands.bundle.making import BundleRequest, make_bundle
from modelpress.toolkit.progress import Silent
from tests.helpers.graph_builder import INPUT, GraphBuilder
from tests.helpers.sequence_models import language

pytestmark = pytest.mark.skipif(
    "MODELPRESS_INTEROP" not in os.environ,
    reason="other engines run in an environment of their own: make test-interop",
)
IMAGES = np.random.default_rng(0).standard_normal((6, 3, 12, 12)).astype(np.float32)
MODULES = {"openvino": "openvino", "opencv": "cv2"}


def network():
    """A residual network of a few layers, of which every weight is pruned and on four bits."""
    rng = np.random.default_rng(3)
    builder = GraphBuilder("residual", (3, 12, 12))

    def conv(name, x, c_in):
        weight = (rng.standard_normal((16, c_in, 3, 3)) / np.sqrt(4 * c_in)).astype(np.float32)
        weight = quantize_weight(weight, PostTraining(bits=4, sparsity=0.4), channel_axis=0)
        return builder.conv(
            name, x, weight, rng.standard_normal(16).astype(np.float32) / 10, stride=1, padding=1
        )

    x = builder.relu(conv("head", INPUT, 3))
    x = builder.relu(builder.add(conv("b", builder.relu(conv("a", x, 16)), 16), x))
    x = builder.flatten(builder.global_average_pool(x))
    x = builder.gemm("fc", x, 3 * rng.standard_normal((10, 16)).astype(np.float32), np.zeros(10, np.float32))
    return builder.finish(x, n_outputs=10, metadata={})


def written(folder, flavour, *, opset=None, plain=False):
    model = network() if opset is None else in_opset(network(), opset)
    ranges = calibrate(model, activations_to_calibrate(model), IMAGES) if "int8" in flavour else None
    made = emit(model, flavour=flavour, ranges=ranges)
    if plain:
        expand(made)
    path = folder / f"{flavour}.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def needs(engine):
    if engine in MODULES and importlib.util.find_spec(MODULES[engine]) is None:
        pytest.skip(f"{engine} is not installed")
    if engine == "onnxruntime-web" and not (
        shutil.which("node") and Path(os.environ.get(NODE_MODULES, "node_modules"), engine).is_dir()
    ):
        pytest.skip("Node or onnxruntime-web is not installed")


def checked(engine, path):
    (check,) = check_engines([path], [engine], {path: IMAGES})
    return check


@pytest.mark.parametrize("flavour", ["float", "weight-only", "sparse"])
@pytest.mark.parametrize("engine", ["openvino", "opencv", "onnxruntime-web"])
def test_float_flavours_compute_the_same_everywhere(engine, flavour, tmp_path):
    needs(engine)
    check = checked(engine, written(tmp_path, flavour))
    assert check.error == ""
    assert check.differing_labels == 0
    assert check.relative_error < 1e-5


@pytest.mark.parametrize("flavour", ["int8", "int8-sparse"])
def test_integers_are_the_same_bits_in_a_browser_engine(flavour, tmp_path):
    needs("onnxruntime-web")
    check = checked("onnxruntime-web", written(tmp_path, flavour))
    assert (check.error, check.relative_error) == ("", 0)


@pytest.mark.parametrize("flavour", ["int8", "int8-sparse"])
def test_integers_are_near_in_openvino(flavour, tmp_path):
    needs("openvino")
    check = checked("openvino", written(tmp_path, flavour, plain=flavour == "int8-sparse"))
    assert check.error == ""
    assert check.relative_error < 0.05


@pytest.mark.parametrize("flavour", list(FLAVOURS))
def test_the_reference_evaluator_agrees_on_plain_files_of_opset_19(flavour, tmp_path):
    small = flavour not in ("float", "int8")
    check = checked("reference", written(tmp_path, flavour, opset=19, plain=small))
    assert check.error == ""
    assert check.relative_error < (0.05 if "int8" in flavour else 1e-5)


@pytest.fixture(scope="module")
def handed(tmp_path_factory):
    """A bundle of a model of two inputs, one of them words, and of two outputs."""
    folder = tmp_path_factory.mktemp("handed")
    onnx.save(language(), folder / "m.onnx")
    api.pack(folder / "m.onnx", folder / "m.press")
    request = BundleRequest(flavour=None, write_model=lambda path, model: None, archive=False)
    make_bundle(folder / "m.press", folder / "bundle", request, Silent())
    return folder / "bundle"


def test_the_snippet_in_javascript_computes_the_references(handed):
    if shutil.which("node") is None or NODE_MODULES not in os.environ:
        pytest.skip("needs Node and onnxruntime-web")
    web = Path(os.environ[NODE_MODULES], "onnxruntime-web")
    done = subprocess.run(
        ["node", handed / "port" / "check.mjs", web], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "allowed are 0.001" in done.stdout


def test_the_snippet_in_c_plus_plus_computes_the_references(handed):
    """`MODELPRESS_ONNXRUNTIME` is a folder of ONNX Runtime for C++: `include` and `lib`."""
    if "MODELPRESS_ONNXRUNTIME" not in os.environ or shutil.which("c++") is None:
        pytest.skip("needs ONNX Runtime's headers and library: MODELPRESS_ONNXRUNTIME=FOLDER")
    include, library = (Path(os.environ["MODELPRESS_ONNXRUNTIME"], part) for part in ("include", "lib"))
    program = handed.parent / "check"
    source = handed / "port" / "check.cpp"
    command = ["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", include, "-o", program, source]
    subprocess.run([*command, "-L", library, "-lonnxruntime", f"-Wl,-rpath,{library}"], check=True)
    done = subprocess.run([program, handed], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
