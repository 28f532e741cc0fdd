"""A file of the wrong kind, or a name with the wrong ending, is answered with what it is and what to do."""

import json

import numpy as np
import onnx
import pytest
import torch

from modelpress.benchmarks.records import Results, write_results
from modelpress.export.files.kinds import Kind, Wanted, check_kind, kind_of, wrong_kind
from modelpress.export.onnx_flavours import emit, write_onnx
from modelpress.export.press.writing import write_artifact
from modelpress.toolkit.networks.resnet_cifar import ResNetCifar
from modelpress.toolkit.training.checkpoint import save_state
from tests.helpers.command_line import one_line
from tests.helpers.models import small_model

MODEL = {"name": "m", "path": "m.press", "format": "press", "size_bytes": 9, "sparsity": None}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of every kind that there is a name for."""
    folder = tmp_path_factory.mktemp("kinds")
    write_artifact(folder / "model.press", small_model())
    write_onnx(folder / "model.onnx", small_model(), flavour="float")
    save_state(folder / "net.safetensors", {"w": torch.ones(3)}, {})
    torch.save({"layer.weight": torch.ones(3)}, folder / "other.pt")
    torch.save({"w": torch.ones(3)}, folder / "old.pt", _use_new_zipfile_serialization=False)
    np.savez(folder / "arrays.npz", a=np.ones(3))
    np.save(folder / "array.npy", np.ones(3))
    write_results(folder / "results.json", Results.model_validate({"environment": {}, "models": [MODEL]}))
    manifest = {"schema_version": 1, "modelpress": "1", "status": "running", "recipe": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))
    (folder / "bundle.json").write_text('{"schema_version": 1, "kind": "modelpress bundle"}')
    (folder / "any.json").write_text("[1]")
    (folder / "recipe.yaml").write_text("seed: 1\n")
    (folder / "notes.txt").write_text("größer " * 200)
    (folder / "page.pdf").write_bytes(b"%PDF-1.7\n\xe2")
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (folder / "empty").touch()
    (folder / "noise").write_bytes(bytes(range(255, 0, -1)))
    return folder


KINDS = {
    "model.press": Kind.PRESS,
    "model.onnx": Kind.ONNX,
    "net.safetensors": Kind.SAFETENSORS,
    "other.pt": Kind.TORCH,
    "old.pt": Kind.TORCH,
    "arrays.npz": Kind.NPZ,
    "array.npy": Kind.NPY,
    "results.json": Kind.RESULTS,
    "manifest.json": Kind.MANIFEST,
    "bundle.json": Kind.BUNDLE_MANIFEST,
    "any.json": Kind.JSON,
    "recipe.yaml": Kind.YAML,
    "notes.txt": Kind.TEXT,
    "page.pdf": Kind.PDF,
    "photo.png": Kind.PNG,
    "empty": Kind.EMPTY,
    "noise": Kind.UNKNOWN,
    ".": Kind.FOLDER,
    "nothing": Kind.MISSING,
    "empty/below": Kind.MISSING,
}


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_first_bytes_tell_the_kind(files, name, kind):
    assert kind_of(files / name) is kind


def test_a_name_that_no_file_can_have_is_no_error():
    assert kind_of(__import__("pathlib").Path("a\0b")) is Kind.UNREADABLE


@pytest.mark.parametrize("wanted", Wanted)
def test_what_first_bytes_do_not_tell_is_left_to_the_reader(files, wanted):
    for name in ("noise", "notes.txt", "nothing"):
        check_kind(files / name, wanted)


def test_a_folder_names_the_file_that_was_meant(files):
    assert wrong_kind(files, Wanted.PRESS).endswith(f"did you mean {files / 'model.press'}?")


CASES = [
    # command, exit code, and what its one line on stderr says
    (["inspect", "model.onnx"], "model.onnx: is an ONNX model, expected a .press artifact: make one with"),
    (
        ["verify", "model.onnx"],
        "is an ONNX model, expected a .press artifact: make one with `modelpress pack",
    ),
    (["onnx", "model.onnx"], "is an ONNX model, expected a .press artifact: make one with `modelpress pack"),
    (
        ["onnx", "other.pt"],
        "is a PyTorch checkpoint, expected a .press artifact: make one with `modelpress pack",
    ),
    (
        ["inspect", "results.json"],
        "is a results file (results.json), expected a .press artifact: draw it with",
    ),
    (["inspect", "."], "is a folder, expected a .press artifact: did you mean"),
    (["inspect", "photo.png"], "is a PNG image, expected a .press artifact"),
    (["bench", "page.pdf"], "is a PDF document, neither a .press artifact nor an ONNX model"),
    (["bench", "."], "is a folder, neither a .press artifact nor an ONNX model: did you mean"),
    (["pack", "model.press"], "is a .press artifact, expected an ONNX model (.onnx) or a network file"),
    (["pack", "."], "is a folder, expected an ONNX model (.onnx) or a network file"),
    (["pack", "results.json"], "is a results file (results.json), expected an ONNX model"),
    (["verify", "model.onnx", "--against", "model.press"], "swap them, `modelpress verify"),
    (
        ["report", "model.press"],
        "is a .press artifact, expected results.json of `modelpress bench` or `run`: measure",
    ),
    (["report", "manifest.json"], "the results of that run are in results.json beside it"),
    (["run", "-c", "manifest.json"], 'save what it holds under "recipe" as a file of its own'),
    (["run", "-c", "model.press"], "is a .press artifact, expected a recipe (YAML)"),
    (["run", "-c", "."], "is a folder; did you mean"),
    (["prune", "model.onnx"], "an ONNX model is not trained here; quantize and pack it in one step"),
    (["quantize", "model.press"], "a packed network is not trained further"),
    (
        ["prune", "other.pt"],
        "expected resnet20; of any other network, export an ONNX model and `modelpress pack",
    ),
    (
        ["pack", "other.pt"],
        "expected resnet20; of any other network, export an ONNX model and `modelpress pack",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_a_file_of_the_wrong_kind_is_one_line_with_the_way_out(files, tmp_path, call, arguments, message):
    folder_or_file = [str(files / word) if word in KINDS else word for word in arguments]
    outputs = {"bench": [], "inspect": [], "verify": [], "run": ["-o", tmp_path / "run"]}
    endings = {"onnx": ".onnx", "pack": ".press", "report": ".html"}
    ending = endings.get(arguments[0], ".safetensors")
    code, out, err = call(*folder_or_file, *outputs.get(arguments[0], ["-o", tmp_path / f"new{ending}"]))
    assert code == 1
    assert message in one_line(err)
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["report", "results.json", "-o", "x.pdf"],
            "this will be a report; expected a name that ends in .html",
        ),
        (
            ["onnx", "model.press", "-o", "x.press"],
            "this will be an ONNX model; expected a name that ends in .onnx",
        ),
        (
            ["pack", "model.onnx", "-o", "x.onnx"],
            "this will be an artifact; expected a name that ends in .press",
        ),
        (["unpack", "model.press", "-o", "x.txt"], "expected a name that ends in .onnx or .npz"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_name_for_a_new_file_must_end_as_its_content_does(files, tmp_path, call, arguments, message):
    places = {"-o": "-o", arguments[-1]: tmp_path / arguments[-1]}
    code, _, err = call(*[files / a if a in KINDS else places.get(a, a) for a in arguments])
    assert code == 2
    assert message in one_line(err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["prune", "net.safetensors"], ["pack", "model.onnx"]])
def test_a_percentage_is_answered_with_the_fraction(files, call, command):
    code, _, err = call(command[0], files / command[1], "--sparsity", "70")
    assert code == 2
    assert "give 0.7" in " ".join(err.replace("│", "").split())  # but for the frame that is drawn around it


def test_a_percentage_in_a_setting_is_answered_with_the_fraction(files, call):
    code, _, err = call("prune", files / "net.safetensors", "--set", "prune.sparsity=70")
    assert code == 2
    assert "for 70 % write 0.7" in one_line(err)


def test_onnx_models_are_packed_whatever_they_are_called(files, tmp_path, call):
    (tmp_path / "model").write_bytes((files / "model.onnx").read_bytes())
    code, _, err = call("pack", tmp_path / "model", "-o", tmp_path / "m.press")
    assert code == 0, err


# What verify says of a pack that is not lossless


def other_weights(model, change):
    """The ONNX model of an artifact, with one tensor changed."""
    emitted = emit(model, flavour="float")
    for tensor in emitted.graph.initializer:
        if tensor.name in change:
            array = onnx.numpy_helper.to_array(tensor) + change[tensor.name]
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return emitted


def test_a_lossy_pack_is_told_with_how_much_it_lost(files, tmp_path, call):
    path = tmp_path / "source.onnx"
    onnx.save(other_weights(small_model(), {"fc.weight": np.float32(0.25)}), path)
    code, out, err = call("verify", files / "model.press", "--against", path)
    assert code == 0, err
    words = " ".join((out + err).split())
    assert "lossy: 3 of 4 tensors equal those of" in words
    assert "worst is fc.weight: largest difference 2.5e-01, mean 2.5e-01" in words
    assert "dB" in words


@pytest.mark.parametrize("name", ["conv.bias", "fc.bias"])
def test_what_is_not_quantized_must_be_equal(files, tmp_path, call, name):
    path = tmp_path / "source.onnx"
    onnx.save(other_weights(small_model(), {name: np.float32(0.25)}), path)
    code, _, err = call("verify", files / "model.press", "--against", path)
    assert code == 1
    assert f"in 1 tensors that should be equal bit for bit: {name}" in one_line(err)


def test_a_checkpoint_of_another_depth_is_told_tensor_by_tensor(tmp_path, call):
    torch.save(ResNetCifar("resnet32").state_dict(), tmp_path / "deep.pt")
    code, _, err = call("prune", tmp_path / "deep.pt", "-o", tmp_path / "p.safetensors")
    assert code == 1
    assert "does not fit the network" in one_line(err)


def test_a_recipe_whose_ninth_letter_is_a_brace_is_a_recipe(tmp_path, call):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data:   {dataset: digits}\n")
    assert kind_of(recipe) is Kind.YAML
    assert call("run", "-c", recipe, "--dry-run")[0] == 0
