"""What runs in `verify`: with inputs that are made up, or given; what cannot run is not checked, and all else is."""

import numpy as np
import pytest
from onnx import TensorProto

from modelpress.benchmarks.subjects.given import NOTHING, read_given
from modelpress.export.errors import InputError
from modelpress.export.isolation.foreign import foreign_work
from modelpress.toolkit import api
from modelpress.toolkit.model_files.verifying import verification
from tests.helpers.foreign_onnx import INFO, NODE, foreign, saved


@pytest.fixture(scope="module", autouse=True)
def one_process():
    with foreign_work():
        yield


def packed(folder, nodes, tensors, **shapes):
    model = foreign(nodes, tensors, **shapes)
    model.graph.input.extend([INFO("z", TensorProto.FLOAT, ["N", 2])])
    source = saved(model, folder / "m.onnx")
    api.pack(source, folder / "m.press", min_elements=1)
    return folder / "m.press", source


def run_of(path, **options):
    return next(step for step in verification(path, **options) if step.check == "ONNX Runtime")


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory):
    nodes = [
        NODE("Abs", ["x"], ["a"]),
        NODE("MatMul", ["a", "w"], ["h"]),
        NODE("Sub", ["h", "z"], ["d"]),
        NODE("Log", ["d"], ["y"]),
    ]
    weights = np.random.default_rng(0).uniform(-90, -60, (4, 2)).astype(np.float32)
    return packed(tmp_path_factory.mktemp("two"), nodes, {"w": weights}, y=("N", 2))


def test_given_inputs_are_run_and_numbers_are_finite(two_inputs, tmp_path):
    path, _ = two_inputs
    for name, array in (("x", np.ones((3, 4), np.float32)), ("z", np.full((3, 2), -999, np.float32))):
        np.save(tmp_path / f"{name}.npy", array)
    step = run_of(path, given=read_given({}, [tmp_path]))
    assert step.holds
    assert step.detail == "runs; output shape (3, 2), finite; 1 calls given"


def test_numbers_that_are_not_finite_are_no_failure_where_the_inputs_may_be_to_blame(two_inputs):
    step = run_of(two_inputs[0])
    assert step.holds is None
    assert "y holds NaN or infinity (made up: x float32 (1, 4), z float32 (1, 2))" in step.detail


def test_weights_are_compared_where_nothing_can_be_run(tmp_path):
    nodes = [NODE("Reshape", ["x", "shape"], ["r"]), NODE("MatMul", ["r", "w"], ["y"])]
    tensors = {"w": np.arange(8, dtype=np.float32).reshape(4, 2), "shape": np.array([5, 4])}
    path, source = packed(tmp_path, nodes, tensors, y=("N", 2))
    steps = {step.check: step for step in verification(path, against=source)}
    assert steps["ONNX Runtime"].holds is None
    assert "not run: ONNX Runtime rejects inputs of shape x float32 (1, 4)" in steps["ONNX Runtime"].detail
    assert all(step.holds for name, step in steps.items() if name != "ONNX Runtime")
    assert "weights" in steps
    assert api.verify(path)["ONNX Runtime"].startswith("not checked: not run")
    assert run_of(path, given=read_given({}, shapes={"x": (5, 4)})).holds


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (read_given({}, shapes={"q": (1,)}), "no model has an input of this name"),
        (read_given({}, shapes={"x": (1, 5)}), r"--shape x=1,5: .*m.press expects x float32 \(N, 4\)"),
    ],
)
def test_what_is_given_and_does_not_fit_is_refused(two_inputs, given, message):
    assert given != NOTHING
    with pytest.raises(InputError, match=message):
        verification(two_inputs[0], given=given)
