"""Networks of libraries and of the user's own functions, named in a recipe."""

import json

import pytest

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.network_file import load_network, new_network, save_network
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.recipe import ModelOptions
from tests.helpers.command_line import QUICK, one_line

FACTORY = """
from torch import nn

def small(width=6, classes=10):
    body = (nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
    depthwise = nn.Conv2d(width, width, 3, 2, 1, groups=width)
    return nn.Sequential(*body, depthwise, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))

def broken():
    raise RuntimeError("no weights today")

def nothing():
    return 3
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(FACTORY)
    return path


def test_a_network_of_ones_own_goes_through_the_whole_chain(own, tmp_path, call):
    settings = ["--set", f"model.factory={own}:small", "--set", "model.arguments={width: 8}"]
    short = ["--set", "train.epochs=1", "--epochs", 1, "--device", "cpu"]
    code, out, err = call("run", "-o", tmp_path / "out", *settings, *short, *QUICK, "--json")
    assert code == 0, err
    files = {model["path"]: model for model in json.loads(out)["models"]}
    assert files["model.press"]["sparsity"] > 0.3
    layers = {layer["name"]: layer["bits"] for layer in files["model.press"]["layers"]}
    assert layers == {"0.weight": None, "3.weight": 4, "7.weight": None}

    # a file alone never makes code run
    checkpoint = tmp_path / "out" / "checkpoint.safetensors"
    code, _, err = call("pack", checkpoint, "-o", tmp_path / "m.press")
    assert code == 1
    assert f"code is run only where you name it: --set model.factory={own}:small" in one_line(err)
    assert call("pack", checkpoint, *settings, "-o", tmp_path / "m.press")[0] == 0
    assert (tmp_path / "m.press").read_bytes() == (tmp_path / "out" / "model.press").read_bytes()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "raised RuntimeError: no weights today"),
        ("nothing", r"made a int; expected a torch\.nn\.Module"),
        ("absent", "there is no function 'absent'"),
        ("not a name", "expected package.module:function, or file.py:function"),
    ],
)
def test_a_function_that_makes_no_network_is_told(own, name, message):
    with pytest.raises(InputError, match=message):
        new_network(ModelOptions(factory=f"{own}:{name}"), seed=0)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nowhere.py:make", "nowhere.py does not exist"),
        ("no_such_package.module:make", "cannot be imported: ModuleNotFoundError"),
        ("make", "expected package.module:function"),
    ],
)
def test_a_function_that_is_not_there_is_told(factory, message):
    with pytest.raises(InputError, match=message):
        new_network(ModelOptions(factory=factory), seed=0)


def test_a_network_of_torchvision_is_saved_and_read_again(tmp_path):
    pytest.importorskip("torchvision")
    model = ModelOptions(arch="torchvision/squeezenet1_1")
    network = new_network(model, seed=0, n_classes=7)
    save_network(tmp_path / "n.safetensors", NetworkState(network, model))
    read = load_network(tmp_path / "n.safetensors", ModelOptions())
    assert read.architecture == "torchvision/squeezenet1_1"
    for name, tensor in network.state_dict().items():
        assert tensor.equal(read.network.state_dict()[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "torchvision/resnet19"}, "no network of this name; did you mean resnet1"),
        ({"arch": "torchvision/resnet18", "arguments": {"weights": "DEFAULT"}}, "nothing is fetched here"),
        ({"arch": "torchvision/resnet18", "arguments": {"depth": 3}}, "TypeError"),
    ],
)
def test_what_torchvision_does_not_have_is_told(options, message):
    pytest.importorskip("torchvision")
    with pytest.raises(InputError, match=message):
        new_network(ModelOptions(**options), seed=0)
