"""`import modelpress`: which names it gives, and what it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import modelpress


def imports_for_type_checkers():
    """Name and module of every import under TYPE_CHECKING."""
    tree = ast.parse(Path(modelpress.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: node.module.removeprefix("modelpress.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_type_checkers_and_users_get_the_same_names_from_the_same_places():
    assert imports_for_type_checkers() == modelpress._HOME
    assert sorted([*modelpress._HOME, "__version__"]) == sorted(modelpress.__all__)


@pytest.mark.parametrize("name", modelpress.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(modelpress, name)
    assert name in dir(modelpress)
    assert name == "__version__" or value.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'modelpress' has no attribute 'pakc'"):
        _ = modelpress.pakc


def test_the_import_alone_loads_nothing_heavy():
    script = "import sys, modelpress; print([m for m in ('numpy', 'onnx', 'pydantic', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_functions_that_need_no_torch_load_none():
    script = "import sys, modelpress; modelpress.pack, modelpress.Recipe; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
