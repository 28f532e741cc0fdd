"""Export and benchmarks work where torch is not installed."""

import pkgutil
import subprocess
import sys

import numpy as np
import pytest

import modelpress.benchmarks
import modelpress.export
from tests.helpers.paths import ROOT

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(name + " is not installed")
sys.meta_path.insert(0, Blocker())
"""
TRAINING_STACK = ("torch", "torchvision", "sklearn", "numba")


def modules_of(package):
    return [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]


def run_without(blocked, code):
    program = BLOCKER.format(blocked=blocked) + code
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize("package", [modelpress.export, modelpress.benchmarks])
def test_every_module_imports_without_torch(package):
    names = [name for name in modules_of(package) if not name.endswith("_compiled")]  # numba's own
    assert len(names) > 5
    done = run_without(
        TRAINING_STACK, f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    from modelpress.export.onnx_flavours import write_onnx
    from modelpress.export.press.artifact import write_artifact
    from tests.helpers.models import small_model

    path = tmp_path_factory.mktemp("artifact") / "model.press"
    write_artifact(path, small_model())
    write_onnx(path.with_name("foreign.onnx"), small_model(), flavour="float")
    np.save(path.with_name("inputs.npy"), np.random.default_rng(0).random((4, 2, 6, 6), np.float32))
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ["pack", "{folder}/foreign.onnx", "-o", "{folder}/foreign.press", "--overwrite"],
        ["inspect", "{file}"],
        ["verify", "{file}"],
        ["unpack", "{file}", "-o", "{folder}/unpacked.onnx", "--overwrite"],
        ["unpack", "{file}", "-o", "{folder}/unpacked.npz", "--overwrite"],
        ["onnx", "{file}", "-o", "{folder}/model.onnx", "--overwrite"],
        [
            *("onnx", "{file}", "-o", "{folder}/model.onnx", "--overwrite"),
            *("--flavour", "int8-sparse", "--calibration-data", "{folder}/inputs.npy"),
        ],
        ["bench", "runtime"],
        ["bundle", "{file}", "-o", "{folder}/handoff", "--overwrite"],
        ["bench", "{file}", "--batch", "1", "2", "--threads", "1", "--rounds", "1"],
        ["study", "sparse-regression", "-o", "{folder}/study", "--overwrite"],
    ],
)
def test_commands_on_files_work_without_torch(artifact, arguments):
    filled = [a.format(file=artifact, folder=artifact.parent) for a in arguments]
    code = f"sys.argv[1:] = {filled!r}\nfrom modelpress.toolkit.commands.cli import main\nmain()"
    done = run_without(TRAINING_STACK, code)
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy():
    heavy = ("torch", "numpy", "onnx", "onnxruntime", "matplotlib", "scipy", "pydantic", "yaml")
    code = 'sys.argv[1:] = ["--help"]\nfrom modelpress.toolkit.commands.cli import main\nmain()'
    done = run_without(heavy, code)
    assert done.returncode == 0, done.stderr
    for command in (
        "run",
        "train",
        "prune",
        "quantize",
        "pack",
        "onnx",
        "bundle",
        "bench",
        "inspect",
        "verify",
        "unpack",
        "report",
        "study",
    ):
        assert f" {command} " in done.stdout


def test_training_commands_say_what_is_missing(tmp_path):
    code = f'sys.argv[1:] = ["run", "-o", {str(tmp_path / "out")!r}]\n'
    code += "from modelpress.toolkit.commands.cli import main\nmain()"
    done = run_without(("torch",), code)
    assert done.returncode == 1
    assert "pip install -e '.[train]' in the checkout" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
