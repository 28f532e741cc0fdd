"""Weights found in somebody else's file, and matched to a network's names."""

from pathlib import Path

import pytest
import torch
from torch import nn

from modelpress.export.errors import InputError
from modelpress.toolkit.networks.foreign.adapting import adapt
from modelpress.toolkit.networks.foreign.name_map import map_names, shapes_of
from modelpress.toolkit.networks.foreign.nested import USUAL_KEYS, weights_in
from modelpress.toolkit.networks.foreign.zeros import masks_of_zeros
from modelpress.toolkit.training.checkpoint import load_into

WEIGHTS = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}


def adapted(theirs, own, *, map_by_shape=False, ordered=True):
    return adapt(theirs, own, map_by_shape=map_by_shape, ordered=ordered)


def prefixed(prefix, tensors=WEIGHTS):
    return {prefix + name: value for name, value in tensors.items()}


# where the weights are


@pytest.mark.parametrize("key", USUAL_KEYS)
def test_weights_are_found_under_the_usual_keys(key):
    found = weights_in({"epoch": 3, key: WEIGHTS, "optimizer": {"state": {}}})
    assert found.tensors == WEIGHTS
    assert found.notes == (f"not read beside {key!r}: epoch, optimizer",)


def test_weights_are_found_dicts_deep():
    assert weights_in({"model": {"state_dict": WEIGHTS}}).tensors == WEIGHTS


def test_settings_under_a_usual_key_are_no_weights():
    assert weights_in({"model": {"name": "resnet"}, "weights": WEIGHTS}).tensors == WEIGHTS


def test_the_averaged_weights_are_named_and_chosen_by_key():
    average = {name: value + 1 for name, value in WEIGHTS.items()}
    content = {"state_dict_ema": average, "state_dict": WEIGHTS}
    found = weights_in(content)
    assert found.tensors == WEIGHTS
    assert "choose them with model.checkpoint_key=state_dict_ema" in found.notes[0]
    assert weights_in(content, key="state_dict_ema").tensors == average
    assert weights_in({"a": {"b": WEIGHTS}}, key="a.b").tensors == WEIGHTS


@pytest.mark.parametrize("key", ["ema", "state_dict.ema", "state_dict.fc.weight.x"])
def test_a_key_that_is_not_there_is_refused_with_those_that_are(key):
    with pytest.raises(InputError, match=rf"has nothing under model.checkpoint_key '{key}'; it holds "):
        weights_in({"state_dict": WEIGHTS}, key=key)


def test_entries_that_are_no_tensors_are_named():
    found = weights_in({**WEIGHTS, "epoch": 3, 7: torch.zeros(1)})
    assert found.tensors == WEIGHTS
    assert found.notes == ("entries that are no tensors are not read: epoch, 7",)


def endless():
    content = {}
    content["model"] = content
    return content


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ({}, "a dict of nothing"),
        ([WEIGHTS], "a list"),
        ({"state_dict": {}}, "a dict of dict"),
        ({"a": 1}, "a dict of int"),
        (endless(), "a dict of dict"),
    ],
)
def test_files_without_weights_are_refused(content, got):
    with pytest.raises(InputError, match=f"expected tensors by name, got {got}"):
        weights_in(content)


# prefixes


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "a.b.c."])
def test_prefixes_are_taken_off(prefix):
    found = adapted(prefixed(prefix), WEIGHTS)
    assert found.tensors == WEIGHTS
    assert len(found.notes) >= 1


def test_wrappers_inside_names_are_taken_off():
    own = {"features.0.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}
    theirs = {"features.module.0.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}
    assert adapted(theirs, own).tensors.keys() == own.keys()


def test_a_network_with_a_module_called_module_keeps_it():
    own = prefixed("module.")
    assert adapted(own, own) == adapted(own, own).__class__(own)
    assert adapted(prefixed("module.", own), own).tensors == own


def test_what_belongs_to_the_training_is_left_out():
    found = adapted({**prefixed("model."), "loss.weight": torch.ones(3)}, WEIGHTS)
    assert found.tensors == WEIGHTS
    assert found.notes[-1] == "tensors outside 'model.' are not read: loss.weight"


def test_two_networks_in_one_file_are_not_guessed_between():
    with pytest.raises(
        InputError,
        match=r"more than once: under model\. and under teacher\.; choose with model\.checkpoint_key=model",
    ):
        adapted({**prefixed("model."), **prefixed("teacher.")}, WEIGHTS)
    assert weights_in({**prefixed("model."), **prefixed("teacher.")}, key="model").tensors == WEIGHTS


# number types


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_other_precision_are_converted_and_it_is_said(kind):
    found = adapted({name: value.to(kind) for name, value in WEIGHTS.items()}, WEIGHTS)
    assert all(torch.equal(found.tensors[name], value) for name, value in WEIGHTS.items())
    assert {value.dtype for value in found.tensors.values()} == {torch.float32}
    (note,) = found.notes
    assert note.endswith("are float32: the values are the same")


def test_rounding_is_said_with_its_size():
    third = {"fc.weight": torch.full((2, 3), 1 / 3, dtype=torch.float64), "fc.bias": torch.zeros(2)}
    (note,) = adapted(third, WEIGHTS).notes
    assert note == "1 tensors were float64, are float32: rounded, by at most 9.9e-09"


@pytest.mark.parametrize(
    "change", [lambda t: t.int(), lambda t: t.to(torch.complex64), lambda t: t.to_sparse()]
)
def test_other_types_are_left_for_the_check_to_refuse(change):
    theirs = {name: change(value) for name, value in WEIGHTS.items()}
    assert adapted(theirs, WEIGHTS).tensors == theirs


# names that do not fit


def network_of(*modules):
    return nn.Sequential(*modules).state_dict()


CONVS = network_of(
    nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 10)
)


def renamed(own, names):
    by_module = dict(zip(dict.fromkeys(key.rpartition(".")[0] for key in own), names, strict=True))
    return {
        f"{by_module[module]}.{kind}": value
        for (module, _, kind), value in ((key.rpartition("."), value) for key, value in own.items())
    }


FOREIGN = renamed(CONVS, ["stem", "norm", "deep.conv", "deep.norm", "head"])


def test_other_names_are_refused_with_what_was_expected_and_a_proposal():
    with pytest.raises(InputError) as caught:
        adapted(FOREIGN, CONVS)
    message = str(caught.value)
    assert "14 missing (0.weight (8, 3, 3, 3)" in message
    assert "14 unknown (stem.weight (8, 3, 3, 3)" in message
    assert "all 5 layers fit" in message
    assert "use it with --map-names" in message
    (table,) = caught.value.__notes__
    assert table.splitlines()[0] == "stem       →  0  weight (8, 3, 3, 3), bias"
    assert len(table.splitlines()) == 5


def test_the_nearest_name_is_given():
    theirs = {"fc1.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
    with pytest.raises(InputError, match=r"1 missing \(fc.weight \(2, 3\), nearest fc1.weight\)"):
        adapted(theirs, WEIGHTS)


def test_a_mapping_by_order_puts_every_tensor_in_its_place():
    found = adapted(FOREIGN, CONVS, map_by_shape=True)
    assert all(torch.equal(found.tensors[name], value) for name, value in CONVS.items())
    assert found.tensors.keys() == CONVS.keys()
    assert found.name_map.modules()["deep.norm"] == "3"
    assert found.notes == ("5 layers have other names: mapped by shape and order",)


def test_names_that_fit_are_never_mapped():
    assert adapted(CONVS, CONVS, map_by_shape=True).name_map is None


def test_batch_norm_without_its_counter_is_read():
    old = {name: value for name, value in FOREIGN.items() if not name.endswith("num_batches_tracked")}
    found = adapted(old, CONVS, map_by_shape=True)
    assert found.tensors.keys() == CONVS.keys()
    assert found.tensors["1.num_batches_tracked"] == 0


def test_a_checkpoint_of_another_network_has_no_mapping():
    other = network_of(nn.Conv2d(3, 8, 5), nn.Linear(8, 10))
    with pytest.raises(InputError) as caught:
        adapted(other, CONVS, map_by_shape=True)
    assert "0.weight (8, 3, 5, 5) instead of (8, 3, 3, 3)" in str(caught.value)
    assert "without counterpart are the checkpoint's 0.weight (8, 3, 5, 5)" in str(caught.value)
    assert "and the network's 0.weight (8, 3, 3, 3)" in str(caught.value)


def test_a_wrong_number_of_classes_is_named():
    other = prefixed("module.", {**WEIGHTS, "fc.weight": torch.zeros(7, 3), "fc.bias": torch.zeros(7)})
    network = nn.ModuleDict({"fc": nn.Linear(3, 2)})
    with pytest.raises(InputError, match=r"fc.weight \(7, 3\) instead of \(2, 3\)"):
        load_into(network, adapted(other, WEIGHTS).tensors, Path("x.pt"))


def test_layers_in_another_order_have_two_candidates():
    block = network_of(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    convolutions_first = renamed(
        network_of(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8)),
        ["conv_a", "conv_b", "norm_a", "norm_b"],
    )
    with pytest.raises(
        InputError,
        match=r"0.weight \(8, 8, 3, 3\) could be conv_a or conv_b, and the order does not tell: layer 2",
    ):
        adapted(convolutions_first, block, map_by_shape=True)


def test_without_an_order_only_numbers_tell_equals_apart():
    own = shapes_of(network_of(*[nn.Linear(4, 4) for _ in range(11)]))
    sorted_names = sorted(f"layer{i}.{kind}" for i in range(11) for kind in ("weight", "bias"))
    theirs = {name: own[f"0.{name.rpartition('.')[2]}"] for name in sorted_names}
    assert list(theirs)[2] == "layer1.bias"  # and then layer10
    found = map_names(theirs, own, ordered=False).modules()
    assert found == {f"layer{i}": str(i) for i in range(11)}

    words = {f"{name}.weight": (4, 4) for name in ("key", "query")}
    with pytest.raises(InputError, match="could be key or query, and safetensors files keep no order"):
        map_names(words, {"0.weight": (4, 4), "1.weight": (4, 4)}, ordered=False)


def test_layers_without_equals_need_no_order():
    theirs = {"b.weight": (4, 4), "a.weight": (3, 4)}
    ours = {"first.weight": (3, 4), "second.weight": (4, 4)}
    assert map_names(theirs, ours, ordered=False).modules() == {"a": "first", "b": "second"}


# zeros


def test_a_few_zeros_are_chance():
    weight = torch.ones(1000)
    weight[:16] = 0
    assert not masks_of_zeros({"a": weight})
    weight[16] = 0
    assert masks_of_zeros({"a": weight})["a"].sum() == 983
    large = torch.ones(10_000)
    large[:100] = 0
    assert not masks_of_zeros({"a": large})
