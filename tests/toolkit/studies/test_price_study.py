"""`modelpress study price`."""

import json

import numpy as np
import pytest

from modelpress.toolkit.data.digits import load_digits
from modelpress.toolkit.studies.price import study
from tests.helpers.command_line import one_line
from tests.helpers.foreign_onnx import NODE, foreign, saved


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    nodes = [
        NODE("Conv", ["x", "w1", "b1"], ["a"], strides=[8, 8]),
        NODE("Relu", ["a"], ["b"]),
        NODE("Flatten", ["b"], ["c"]),
        NODE("Gemm", ["c", "w2"], ["y"]),
    ]
    shapes = {"w1": (8, 3, 8, 8), "b1": (8,), "w2": (128, 10)}
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return saved(foreign(nodes, tensors, x=("N", 3, 32, 32), y=("N", 10)), tmp_path / "net.onnx")


def test_files_at_a_price_stand_beside_plain_ones_and_are_measured_once(call, source, tmp_path, monkeypatch):
    images = load_digits().train.images[:64]
    np.save(tmp_path / "inputs.npy", images.astype(np.float32) / 255)
    folder = tmp_path / "study"
    arguments = [
        "study",
        "price",
        source,
        "--dataset",
        "digits",
        "--calibration-data",
        tmp_path / "inputs.npy",
    ]
    arguments += ["--prices", "1e-6,1e-4", "--widths", "6,2", "--points", "5", "-o", folder, "--json"]
    code, out, err = call(*arguments)
    assert code == 0, err

    record = json.loads(out)
    assert json.loads((folder / "price.json").read_bytes()) == record
    files = {(file["kind"], file["setting"]): file for file in record["files"]}
    assert {kind for kind, _ in files} == {"float", "min-max", "least-error", "priced"}
    for (kind, setting), file in files.items():
        if kind != "float":
            path = folder / f"net-{kind}-{setting:g}.press"
            assert file["size_bytes"] == path.stat().st_size
    assert files["priced", 1e-4]["size_bytes"] < files["priced", 1e-6]["size_bytes"]
    (compared,) = record["compared"]
    assert compared["smaller"] == 1 - compared["priced"]["size_bytes"] / compared["plain"]["size_bytes"]

    monkeypatch.setattr(study, "run_batched", None)  # nothing is left to be measured
    assert json.loads(call(*arguments)[1])["files"] == record["files"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prices", "much"], "--prices is 'much'; expected numbers as in 2e-8,4e-8"),
        (["--prices", "1e-6", "--widths", "9"], "--widths is '9'; expected numbers as in 8,6,4"),
        (["--prices", "1e-6"], "give --data-dir, or --calibration-data PATH"),
    ],
)
def test_options_that_are_no_such_are_refused(call, source, arguments, message):
    code, _, err = call("study", "price", source, *arguments)
    assert code == 2
    assert message in one_line(err)
