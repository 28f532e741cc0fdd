"""Any network through the one door, and compression in a loop of one's own."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modelpress.export.errors import InputError, ModelError
from modelpress.export.onnx_flavours import emit
from modelpress.export.press.reading import read_artifact
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.runtime import open_session
from modelpress.toolkit.compression.own_loop import compress
from modelpress.toolkit.networks.layers import layers_with_weights
from tests.helpers.networks import NETWORKS, mlp, shaken, small_cnn

HALF = {"prune": {"sparsity": 0.5, "exclude": ()}, "quantize": {"bits": 4, "layers": {}}}


def per_channel(recipe):
    return {**recipe, "quantize": {**recipe["quantize"], "per_channel": True}}


@pytest.mark.parametrize("recipe", [HALF, per_channel(HALF)], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_of_any_network_carries_its_codes(tmp_path, name, recipe):
    torch.manual_seed(0)
    network, x = NETWORKS[name]()
    before = {key: value.clone() for key, value in shaken(network).state_dict().items()}
    squeezed = compress(network, x, recipe)
    weights = {key: w.detach().clone() for key, w in squeezed.network.effective_weights().items()}
    exported = squeezed.export(tmp_path / "m.press")
    assert exported.size_bytes == (tmp_path / "m.press").stat().st_size
    assert exported.difference <= 1e-5
    assert exported.batch is None

    model = read_artifact(tmp_path / "m.press")
    coded = [tensor for tensor in model.tensors.values() if isinstance(tensor, QuantizedTensor)]
    assert sum(tensor.codes.size for tensor in coded) == sum(w.numel() for w in weights.values())
    assert all(layer.bits == 4 for layer in squeezed.report().layers)
    assert (
        sum(int((w == 0).sum()) for w in weights.values())
        >= 0.5 * sum(w.numel() for w in weights.values()) - 1
    )

    # outputs that hardly depend on the input would prove nothing
    session = open_session(emit(model, flavour="float").SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.ptp(found, axis=0).max() > 0.01 * np.ptp(found)
    assert network.training
    pruned = {layer.weight.data_ptr() for layer in layers_with_weights(network).values()}
    for key, value in network.state_dict().items():
        assert value.data_ptr() in pruned or torch.equal(value, before[key])


def test_batch_norm_is_folded_into_every_kind_of_layer(tmp_path):
    for name in ("mlp", "other_convolutions", "inverted_residuals", "pooled_to_seven"):
        network, x = NETWORKS[name]()
        compress(shaken(network), x, HALF).export(tmp_path / f"{name}.press")
        nodes = read_artifact(tmp_path / f"{name}.press").graph.graph.node
        assert "BatchNormalization" not in {node.op_type for node in nodes}


def train(squeezed, x, labels, *, steps, rules):
    optimiser = torch.optim.SGD(squeezed.network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(steps):
        rules.before_step()
        optimiser.zero_grad()
        F.cross_entropy(squeezed.network(x), labels).backward()
        optimiser.step()
        rules.after_step(0.05)


SCHEDULED = {
    "prune": {"sparsity": 0.6, "schedule": "cubic", "epochs": 2, "exclude": ()},
    "quantize": {"bits": 3, "after": 2, "learned": True, "range": "mse", "layers": {}},
    "finetune": {"epochs": 4},
}


def test_a_loop_of_ones_own_prunes_and_quantizes_on_schedule(tmp_path):
    torch.manual_seed(0)
    network, x = mlp()
    labels = (x[:, 0] > 0).long()
    squeezed = compress(network, x, SCHEDULED)
    rules = squeezed.rules(steps_per_epoch=5)
    train(squeezed, x, labels, steps=20, rules=rules)
    assert rules.sparsity() == pytest.approx(0.6, abs=0.01)
    assert len(squeezed.grid_parameters()) > 0
    squeezed.export(tmp_path / "m.press")
    coded = read_artifact(tmp_path / "m.press").quantized()
    assert {tensor.bits for tensor in coded.values()} == {3}
    zeros = sum(t.codes.size - int(np.count_nonzero(t.nonzero)) for t in coded.values())
    assert zeros >= 0.6 * sum(t.codes.size for t in coded.values()) - 1


def test_a_loop_that_is_stopped_goes_on_to_the_same_weights():
    torch.manual_seed(0)
    network, x = mlp()
    labels = (x[:, 0] > 0).long()
    start = {key: value.clone() for key, value in network.state_dict().items()}
    whole = compress(network, x, SCHEDULED)
    train(whole, x, labels, steps=8, rules=whole.rules(steps_per_epoch=5))
    kept = {key: value.clone() for key, value in whole.state_dict().items()}
    more = whole.rules(steps_per_epoch=5, done=8)
    train(whole, x, labels, steps=6, rules=more)

    again, _ = mlp()
    again.load_state_dict(start)
    resumed = compress(again, x, SCHEDULED)
    resumed.load_state_dict(kept)
    train(resumed, x, labels, steps=6, rules=resumed.rules(steps_per_epoch=5, done=8))
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[key], value, rtol=0, atol=0)


def test_a_penalty_acts_in_a_loop_of_ones_own(tmp_path):
    torch.manual_seed(0)
    network, x = mlp()
    recipe = {
        "prune": {
            "method": "proximal-l1",
            "sparsity": 0.5,
            "penalty": 2.0,
            "penalty_warmup": 0.0,
            "exclude": (),
        },
        "quantize": {"layers": {"*": "float"}},
        "finetune": {"epochs": 4},
    }
    squeezed = compress(network, x, recipe)
    train(squeezed, x, (x[:, 0] > 0).long(), steps=20, rules=squeezed.rules(steps_per_epoch=5))
    squeezed.export(tmp_path / "m.press")
    weights = [w.weight for w in layers_with_weights(network).values()]
    assert sum(int((w == 0).sum()) for w in weights) >= 0.4 * sum(w.numel() for w in weights)


def test_the_report_names_what_is_left_and_why():
    network, x = small_cnn()
    nn.utils.parametrizations.weight_norm(network[4])
    network[1].unused = nn.Linear(3, 3)
    plans = {plan.name: plan for plan in compress(network, x).report().layers}
    assert plans["0"].bits is None
    assert "quantize.layers leaves out the first layers" in plans["0"].reason
    assert "a parametrization" in plans["4"].reason
    assert "the graph does not read it" in plans["1.unused"].reason
    assert plans["8"].pruned == "pruned at once (70% of all)"


@pytest.mark.parametrize(("name", "found"), [("inverted_residuals", 2), ("ds_cnn", 2), ("mlp", 0)])
def test_depthwise_kernels_are_found_by_the_graph(name, found):
    network, x = NETWORKS[name]()
    recipe = {"quantize": {"bits": 4, "layers": {"role:depthwise": 8}}}
    plans = compress(network, x, recipe).report().layers
    wide = [plan for plan in plans if plan.bits == 8]
    assert len(wide) == found
    assert all(plan.shape[1] == 1 for plan in wide)


def test_the_report_names_parameters_of_no_layer():
    network, x = NETWORKS["vision_transformer"]()
    report = compress(network, x, HALF).report()
    assert {other.name: other.shape for other in report.others} == {
        "position": (1, 17, 32),
        "token": (1, 1, 32),
    }
    assert "a parameter of no layer" in report.summary()["token"]


class Counting(nn.Module):
    """Makes a number of its batch, which exporters write down for good."""

    def __init__(self):
        super().__init__()
        self.linear, self.token = nn.Linear(4, 4), nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x):
        return self.linear(torch.cat([self.token.expand(len(x), -1, -1), x], 1))


def test_a_batch_that_code_holds_fast_is_told_before_any_training(tmp_path):
    torch.manual_seed(0)
    squeezed = compress(Counting(), torch.randn(3, 2, 4), HALF)
    assert squeezed.report().batch == 3
    assert squeezed.report().summary()["batch"].startswith("3 examples")
    assert squeezed.export(tmp_path / "m.press").batch == 3
    graph = read_artifact(tmp_path / "m.press").graph.graph
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 3


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(2, 3), r"cannot be called with the example input of shape \(2, 3\)"),
        ("an image", "the example input is a str"),
        ((1, 2), "holds no tensor"),
    ],
)
def test_a_wrong_example_is_told(example, message):
    network, _ = small_cnn()
    with pytest.raises(ModelError, match=message):
        compress(network, example)


def test_recipes_that_do_not_fit_are_refused():
    network, x = mlp()
    with pytest.raises(InputError, match="matches no layer"):
        compress(network, x, {"prune": {"exclude": ("nothing*",)}})
    with pytest.raises(InputError, match="quantize is 4; expected a section"):
        compress(network, x, {"quantize": 4})
    with pytest.raises(InputError, match="no weight that can be pruned"):
        compress(nn.Sequential(nn.Flatten()), x)


def test_a_price_that_no_step_would_add_is_refused_where_the_loop_is_ones_own():
    network, x = mlp()
    grid = {"bits": 3, "symmetric": True, "range": "mse", "layers": {}}
    squeezed = compress(network, x, {"quantize": grid, "finetune": {"epochs": 1, "rate": 0.1}})
    with pytest.raises(InputError, match="which a loop of your own computes"):
        squeezed.rules(steps_per_epoch=5)


class Moody(nn.Module):
    """Computes something else each time."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(4, 4), 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * (1 + 0.1 * self.calls)


def test_a_file_that_computes_something_else_is_not_written(tmp_path):
    squeezed = compress(Moody(), torch.randn(2, 4), HALF)
    with pytest.raises(ModelError, match="differ from the network's by"):
        squeezed.export(tmp_path / "m.press")
    assert not list(tmp_path.iterdir())
