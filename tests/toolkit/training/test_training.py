import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from modelpress.export.errors import InputError, ModelpressError
from modelpress.toolkit.compression.network_file import load_network, new_network, save_network
from modelpress.toolkit.compression.pruning.magnitude import prune_global
from modelpress.toolkit.compression.quantization.quantizers import QuantizerSpec
from modelpress.toolkit.compression.state import InputContract, NetworkState
from modelpress.toolkit.networks.layers import weight_layers
from modelpress.toolkit.networks.resnet_cifar import ResNetCifar
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.recipe import ModelOptions, TrainingOptions
from modelpress.toolkit.training.checkpoint import load_into, load_state, save_state
from modelpress.toolkit.training.device import choose_device
from modelpress.toolkit.training.interrupt import Interrupted
from modelpress.toolkit.training.loop import learning_rate_at
from tests.helpers.paths import ROOT
from tests.helpers.training import OPTIONS, SignalAt, assert_same, fit, tiny_network, weights_of


def test_training_learns_and_reports_every_epoch():
    history = fit(tiny_network(), TrainingOptions(epochs=25, batch=32, lr=0.05, padding=0))
    assert [record.epoch for record in history] == list(range(1, 26))
    assert history[-1].loss < 0.9 * history[0].loss
    assert all(record.images_per_second > 0 and 0 <= record.validation_top1 <= 1 for record in history)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stop_after", [1, 5, 7])
def test_a_stopped_run_resumes_to_the_same_weights(tmp_path, stop_after, number):
    straight = tiny_network()
    whole = fit(straight)
    state = tmp_path / "state.safetensors"
    with pytest.raises(Interrupted, match="stopped in epoch"):
        fit(tiny_network(), state_path=state, progress=SignalAt(stop_after, number))
    resumed = tiny_network()
    history = fit(resumed, state_path=state, resume=True)
    assert_same(weights_of(straight), weights_of(resumed))
    assert [record.loss for record in history] == pytest.approx([record.loss for record in whole], rel=1e-6)


def test_a_killed_run_resumes_from_its_last_epoch(tmp_path):
    straight = tiny_network()
    fit(straight)
    state = tmp_path / "state.safetensors"
    script = f"""
import signal
from pathlib import Path
from tests.helpers.training import SignalAt, fit, tiny_network
fit(tiny_network(), state_path=Path({str(state)!r}), progress=SignalAt(8, signal.SIGKILL))
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert load_state(state)[1]["position"]["epoch"] == 1
    resumed = tiny_network()
    fit(resumed, state_path=state, resume=True)
    assert_same(weights_of(straight), weights_of(resumed))


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    network, state = tiny_network(), tmp_path / "state.safetensors"
    fit(network, state_path=state)
    before = weights_of(network)
    again = tiny_network()
    history = fit(again, state_path=state, resume=True)
    assert_same(before, weights_of(again))
    assert len(history) == OPTIONS.epochs


def test_a_state_of_other_options_is_refused(tmp_path):
    state = tmp_path / "state.safetensors"
    fit(tiny_network(), state_path=state)
    with pytest.raises(InputError, match="or with other options"):
        fit(tiny_network(), TrainingOptions(epochs=4, batch=32), state_path=state, resume=True)


def test_a_state_of_another_network_is_refused(tmp_path):
    state = tmp_path / "state.safetensors"
    fit(tiny_network(), state_path=state, identity="one")
    with pytest.raises(InputError, match="another network"):
        fit(tiny_network(), state_path=state, resume=True, identity="two")


def test_a_stop_at_the_last_step_is_no_stop(tmp_path):
    history = fit(tiny_network(), state_path=tmp_path / "s.safetensors", progress=SignalAt(15))
    assert len(history) == OPTIONS.epochs


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_epoch(tmp_path):
    state = tmp_path / "state.safetensors"
    network = tiny_network()

    class Poison(Silent):
        steps = 0

        def advance(self, detail=""):
            self.steps += 1
            if self.steps == 7:
                network.network[5].bias.data[0] = torch.nan

    with pytest.raises(ModelpressError, match="loss is not finite in epoch 2"):
        fit(network, state_path=state, progress=Poison())
    _, metadata = load_state(state)
    assert metadata["position"]["epoch"] == 1


def test_masks_hold_through_training():
    network = tiny_network()
    fit(network)
    network.settle()
    for name, mask in network.masks.items():
        assert not weight_layers(network.network)[name][~mask].any()


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        ("constant", 0.5, 1.0),
        ("cosine", 0.1, 1.0),
        ("cosine", 0.55, 0.5),
        ("cosine", 1.0, 0.0),
        ("cosine", 0.05, 0.5),
    ],
)
def test_learning_rate_schedule(schedule, progress, expected):
    options = TrainingOptions(lr=1.0, schedule=schedule, warmup=0.1)
    assert learning_rate_at(options, progress) == pytest.approx(expected, abs=1e-12)


def test_unknown_devices_are_refused():
    with pytest.raises(InputError, match="unknown; choose auto"):
        choose_device("gpu")
    with pytest.raises(InputError, match="not supported"):
        choose_device("meta")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="0 CUDA devices found"):
            choose_device("cuda")


# checkpoint files


def test_network_file_round_trip(tmp_path):
    path = tmp_path / "net.safetensors"
    network = new_network(ModelOptions(arch="resnet20", shortcut="A"), seed=3)
    masks = prune_global(weight_layers(network), sparsity=0.3)
    contract = InputContract("digits", ("0", "1"), (0.1,) * 3, (0.2,) * 3)
    specs = {"final_fc.linear": QuantizerSpec(5, True, True)}
    state = NetworkState(
        network,
        ModelOptions(shortcut="A"),
        masks,
        specs,
        contract=contract,
        history={"prune": {"removed": 1}},
    )
    save_network(path, state)
    loaded = load_network(path, ModelOptions(shortcut="B"))  # the file knows better
    assert loaded.model.shortcut == "A"
    assert (loaded.quantizers, loaded.contract, loaded.history) == (specs, contract, state.history)
    assert_same(masks, loaded.masks)
    assert_same(network.state_dict(), loaded.network.state_dict())


def test_same_seed_same_network():
    options = ModelOptions()
    assert_same(new_network(options, seed=1).state_dict(), new_network(options, seed=1).state_dict())


def state_dict():
    return ResNetCifar().state_dict()


def write_pickle(path: Path, value):
    torch.save(value, path)
    return path


def test_keys_and_shapes_that_do_not_fit_are_named(tmp_path):
    state = state_dict()
    del state["final_fc.linear.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["head_conv.0.conv.weight"] = torch.zeros(8, 3, 3, 3)
    with pytest.raises(InputError) as caught:
        load_into(ResNetCifar(), state, Path("x.pt"))
    for part in (
        "1 missing (final_fc.linear.bias)",
        "1 unknown (extra.weight)",
        "head_conv.0.conv.weight (8, 3, 3, 3) instead of (16, 3, 3, 3)",
    ):
        assert part in str(caught.value)
    poisoned = state_dict()
    poisoned["head_conv.1.weight"][3] = torch.nan
    with pytest.raises(InputError, match=r"1 not finite \(head_conv.1.weight\)"):
        load_into(ResNetCifar(), poisoned, Path("x.pt"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "is no state dict: expected tensors by name, got a list"),
        ({"a": 1}, "got a dict of int"),
        ({}, "got a dict of nothing"),
        ({1: torch.zeros(1)}, "expected tensors by name"),
        (Path("x"), "loads safely"),
        (ResNetCifar, "loads safely"),
    ],
)
def test_pickles_that_are_no_state_dict_are_refused(tmp_path, value, message):
    with pytest.raises(InputError, match=message):
        load_state(write_pickle(tmp_path / "c.pt", value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.half(), "float16 instead of float32"),
        (lambda t: t.to(torch.complex64), "complex64 instead of float32"),
        (lambda t: t.to_sparse(), "sparse float32 instead of float32"),
    ],
)
def test_tensors_of_another_type_are_never_cast(change, message):
    state = state_dict()
    state["head_conv.0.conv.weight"] = change(state["head_conv.0.conv.weight"])
    with pytest.raises(InputError, match=message):
        load_into(ResNetCifar(), state, Path("x.pt"))


@pytest.mark.parametrize(
    "metadata",
    [
        [1],
        None,
        {"model": "resnet20"},
        {"model": {"arch": "resnet20"}},
        {"model": {"arch": "resnet21", "shortcut": "B"}},
        {"masked": ["nowhere"]},
        {"quantizers": {"nowhere": {"bits": 4}}},
        {"quantizers": {"final_fc.linear": {"bits": 99}}},
        {"quantizers": {"final_fc.linear": {"bitz": 4}}},
        {"contract": {"dataset": "digits"}},
        {"history": 3},
        {"masked": [["a"]]},
        {"masked": 5},
        {"quantizers": {"final_fc.linear": {"bits": "four"}}},
        {"quantizers": {"final_fc.linear": {"bits": 4, "learned": []}}},
        {"grids": {"final_fc.linear": {"scale": [[1], [1, 2]]}}},
        *(
            {"contract": {"dataset": "digits", "class_names": [], "mean": [0.5], "std": [0.5], **wrong}}
            for wrong in (
                {"dataset": 5},
                {"class_names": [[]]},
                {"std": [0.0]},
                {"std": [-1.0]},
                {"std": [float("nan")]},
                {"std": [0.5, 0.5]},
                {"mean": ["a"]},
                {"mean": [], "std": []},
            )
        ),
    ],
)
def test_damaged_metadata_are_named(tmp_path, metadata):
    path = tmp_path / "n.safetensors"
    save_state(path, state_dict(), metadata)
    with pytest.raises(ModelpressError, match="metadata|99 bits|images are normalised by mean"):
        load_network(path, ModelOptions())


def test_metadata_nested_without_end_are_named(tmp_path):
    path = tmp_path / "n.safetensors"
    path.write_bytes(safetensors.torch.save(state_dict(), {"modelpress": "[" * 100_000}))
    with pytest.raises(InputError, match=r"n\.safetensors is no readable safetensors file"):
        load_network(path, ModelOptions())


def test_a_pickle_that_would_run_code_is_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {marker}",))

    (tmp_path / "c.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="loads safely"):
        load_state(tmp_path / "c.pt")
    assert not marker.exists()


def test_wrapped_and_legacy_state_dicts_are_read(tmp_path):
    wrapped, _ = load_state(write_pickle(tmp_path / "a.pt", {"state_dict": state_dict(), "epoch": 3}))
    torch.save(state_dict(), tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    legacy, _ = load_state(tmp_path / "b.pt")
    assert wrapped.keys() == legacy.keys() == state_dict().keys()


def test_damaged_and_missing_checkpoints_are_named(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"no")
    (tmp_path / "b.pt").write_bytes(b"no")
    save_state(tmp_path / "c.safetensors", {"x": torch.zeros(3)}, {})
    (tmp_path / "c.safetensors").write_bytes((tmp_path / "c.safetensors").read_bytes()[:-1])
    for name, message in (
        ("a.safetensors", "no readable safetensors"),
        ("b.pt", "loads safely"),
        ("c.safetensors", "no readable safetensors"),
        ("d.pt", "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            load_state(tmp_path / name)


def test_real_checkpoint_fits(real_checkpoint):
    state = load_network(real_checkpoint, ModelOptions())
    assert sum(w.numel() for w in weight_layers(state.network).values()) == 270_896
