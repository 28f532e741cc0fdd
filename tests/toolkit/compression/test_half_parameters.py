import io

import numpy as np
import pytest
import torch
from torch import nn

from modelpress.export.press.reading import Artifact
from modelpress.export.press.writing import encode_artifact
from modelpress.toolkit.compression.freeze import freeze_state
from modelpress.toolkit.compression.network_file import load_network, new_network, save_network
from modelpress.toolkit.compression.passes.half_parameters import half_parameters
from modelpress.toolkit.compression.passes.quantize import with_quantizers
from modelpress.toolkit.compression.quantization.half_parameters import round_parameters_to_half
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.data.digits import load_digits
from modelpress.toolkit.recipe import ModelOptions, PackOptions, QuantizeOptions, Recipe


def used_norm(channels=8):
    """A batch norm with statistics of its own."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(channels).eval()
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.copy_(torch.rand(channels) + 0.1)
    return norm


def test_folded_parameters_become_half_precision_and_hardly_change():
    norm = used_norm()
    x = torch.randn(4, 8, 3, 3)
    before = norm(x)
    assert round_parameters_to_half(norm)
    factor = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = norm.bias.double() - factor * norm.running_mean.double()
    for folded in (factor, bias):
        assert torch.allclose(folded, folded.half().double(), rtol=1e-6, atol=1e-6)
    assert 0 < (norm(x) - before).abs().max() < 5e-3


def test_nothing_changes_where_half_precision_has_no_room():
    norm = used_norm()
    with torch.no_grad():
        norm.weight[0] = 1e6
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    assert not round_parameters_to_half(norm)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


DIGITS = load_digits()


@pytest.fixture
def state():
    network = new_network(ModelOptions(arch="resnet20", shortcut="A"), seed=0)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.load_state_dict(used_norm(norm.num_features).state_dict())
    return with_quantizers(
        NetworkState(network, ModelOptions(arch="resnet20", shortcut="A")), QuantizeOptions()
    )


def judged(state, monkeypatch, *, before, after, allowed=True):
    accuracies = iter([before, after])
    monkeypatch.setattr(
        "modelpress.toolkit.compression.passes.half_parameters.validation_figure", lambda *_: next(accuracies)
    )
    options = PackOptions(float16_parameters=allowed)
    return half_parameters(state, Work(recipe=Recipe(pack=options), data=DIGITS, device=None))


def test_half_precision_halves_what_biases_and_factors_take(state, monkeypatch, tmp_path):
    halved = judged(state, monkeypatch, before=0.9, after=0.9)
    sizes = {}
    for name, candidate in (("float32", state), ("float16", halved)):
        save_network(tmp_path / "n.safetensors", candidate)
        frozen = freeze_state(load_network(tmp_path / "n.safetensors", candidate.model))
        artifact = Artifact(io.BytesIO(encode_artifact(frozen)))
        stored = list(artifact.stored())
        sizes[name] = sum(
            t.parts["scales"] + t.record.n_bytes * (t.record.name.endswith("bias")) for t in stored
        )
        for tensor in frozen.tensors.values():
            if (
                name == "float16"
                and isinstance(tensor, np.ndarray)
                and tensor.dtype.kind == "f"
                and tensor.ndim == 1
            ):
                np.testing.assert_array_equal(tensor.astype(np.float16).astype(np.float32), tensor)
    assert sizes["float16"] < 0.6 * sizes["float32"]


@pytest.mark.parametrize(
    ("before", "after", "precision"), [(0.9, 0.91, "float16"), (0.9, 0.9, "float16"), (0.9, 0.89, "float32")]
)
def test_a_loss_of_accuracy_keeps_float32(state, monkeypatch, before, after, precision):
    decided = judged(state, monkeypatch, before=before, after=after)
    assert decided.history["parameters"]["precision"] == precision
    assert decided.history["parameters"]["validation_top1"] == {"float32": before, "float16": after}
    assert (decided.network is state.network) == (precision == "float32")


def test_without_validation_images_or_permission_nothing_changes(state, monkeypatch):
    assert judged(state, monkeypatch, before=None, after=None) is state
    assert judged(state, monkeypatch, before=0.9, after=0.9, allowed=False) is state
