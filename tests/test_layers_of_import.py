"""Export and benchmarks work where torch is not installed."""

import json
import pkgutil
import subprocess
import sys

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
HELP = """
sys.argv[1:] = ["--help"]
from modelpress.toolkit.commands.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
"""
TRAINING_STACK = ("torch", "torchvision", "sklearn")


def modules_of(package):
    return [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]


def run_without(blocked, code):
    program = BLOCKER.format(blocked=blocked) + code
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize("package", [modelpress.export, modelpress.benchmarks])
def test_every_module_imports_without_torch(package):
    names = modules_of(package)
    assert len(names) > 5
    done = run_without(
        TRAINING_STACK, f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    )
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy():
    heavy = ("torch", "numpy", "onnx", "onnxruntime", "matplotlib", "scipy", "pydantic", "yaml")
    done = run_without(heavy, HELP)
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


def test_help_imports_few_modules():
    """A count, since what an import takes is mostly the same: 300 take a quarter of a second of the processor."""
    code = HELP + "import modelpress, json\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = run_without((), code)
    assert done.returncode == 0, done.stderr

    modules = json.loads(done.stderr)
    assert len(modules) < 360
    assert len([name for name in modules if name.startswith("modelpress.")]) < 25
