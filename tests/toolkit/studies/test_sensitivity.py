import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from modelpress.export.errors import InputError
from modelpress.export.press.writing import write_artifact
from modelpress.toolkit.byte_sizes import parse_size
from modelpress.toolkit.commands.stages.sensitivity_tables import show_sensitivity
from modelpress.toolkit.compression.freeze import freeze_state
from modelpress.toolkit.compression.network_file import new_network, save_network
from modelpress.toolkit.compression.passes.prune import pruned_by_magnitude
from modelpress.toolkit.compression.passes.quantize import with_quantizers
from modelpress.toolkit.compression.starting import load_images
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.data.batches import to_device
from modelpress.toolkit.data.data_set import Split
from modelpress.toolkit.model_files.inspecting import inspection
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.recipe import ModelOptions, QuantizeOptions, Recipe, load_recipe
from modelpress.toolkit.studies.sensitivity.bit_allocation import allocate, least_budget
from modelpress.toolkit.studies.sensitivity.measuring import (
    Sensitivity,
    WidthFile,
    WidthFiles,
    measure,
    measuring_images,
    propose,
)
from modelpress.toolkit.studies.sensitivity.study import (
    Question,
    parse_bits,
    recipe_snippet,
    run_sensitivity,
)
from modelpress.toolkit.training.device import choose_device
from modelpress.toolkit.training.evaluate import Judged, Quality
from tests.helpers.command_line import one_line

BITS = (2, 4, 8)


@st.composite
def knapsacks(draw):
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    n = shape[0] * shape[1]
    costs = draw(st.lists(st.integers(-4, 40), min_size=n, max_size=n))  # whole: sums are exact, ties occur
    sizes = draw(st.lists(st.integers(0, 60), min_size=n, max_size=n))
    return (
        np.reshape(costs, shape),
        np.reshape(sizes, shape),
        draw(st.integers(0, 250)),
        draw(st.integers(1, 9)),
    )


@given(knapsacks())
def test_the_allocation_is_the_best_of_all(problem):
    costs, sizes, budget, bucket = problem
    taken = -(-sizes // bucket)
    rows = range(len(costs))
    ways = [
        (np.maximum(costs, 0)[rows, way].sum(), taken[rows, way].sum())
        for way in itertools.product(range(costs.shape[1]), repeat=len(costs))
        if taken[rows, way].sum() <= budget // bucket
    ]
    if not ways:
        with pytest.raises(InputError, match=f"{least_budget(sizes, bucket=bucket):,} bytes"):
            allocate(costs, sizes, budget=budget, bucket=bucket)
        return
    chosen = allocate(costs, sizes, budget=budget, bucket=bucket)
    assert (np.maximum(costs, 0)[rows, chosen].sum(), taken[rows, chosen].sum()) == min(ways)
    assert sizes[rows, chosen].sum() <= budget


def test_the_least_budget_is_kept_and_nothing_below_it():
    sizes = [[10, 20], [7, 30]]
    assert allocate(np.zeros((2, 2)), sizes, budget=24).tolist() == [0, 0]
    with pytest.raises(InputError, match="budget of 23 bytes is too small: the smallest choices take 24"):
        allocate(np.zeros((2, 2)), sizes, budget=23)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_cost_that_is_no_number_is_refused(bad):
    with pytest.raises(InputError, match=f"cost of layer 1, choice 0 is {bad}"):
        allocate([[0.0, 1.0], [bad, 1.0]], np.ones((2, 2)), budget=100)


@pytest.mark.parametrize("text", ["", ",", "1,4", "4,9", "2,two", "4.0", "2,4,2", "-4", "٤"])
def test_widths_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="--bits is .*(expected whole numbers from 2 to 8|given twice)"):
        parse_bits(text)


@pytest.mark.parametrize(
    "text", ["", "0", "0.4", "-60kB", "kB", "60 TB", "60k", "1e5", "60,000", "nan", "9" * 13]
)
def test_sizes_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="--budget is .*expected a size"):
        parse_size(text)


@pytest.fixture(scope="module")
def images():
    return load_images(Recipe())


@pytest.fixture(scope="module")
def trained(images):
    """A small network that tells some digits apart."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4, padding=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    network[6] = Flat()
    split = to_device(images.train, images, torch.device("cpu"))
    x, labels = next(split.in_order(300))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(40):
        optimiser.zero_grad()
        F.cross_entropy(network(x), labels).backward()
        optimiser.step()
    return NetworkState(network.eval(), ModelOptions())


class Flat(nn.Module):
    def forward(self, x):
        return torch.flatten(x, 1)


@pytest.fixture(scope="module")
def split(images):
    _, chosen = measuring_images(images, limit=100, seed=0)
    return Judged.of(chosen, images, torch.device("cpu"))


@pytest.fixture(scope="module")
def files(trained):
    return WidthFiles(trained, QuantizeOptions(symmetric=True, per_channel=True))


@pytest.fixture(scope="module")
def measured(files, split):
    return measure(files, split, BITS, Silent())


def only(state, layer, bits):
    """One layer quantized, as the stages would do it."""
    widths = {"*": "float", layer: bits}
    return with_quantizers(
        state, QuantizeOptions(symmetric=True, per_channel=True, range="mse", layers=widths)
    )


@torch.no_grad()
def loss_of(network, split):
    inputs, labels = next(split.examples.in_order(len(split.targets)))
    return F.cross_entropy(inputs.call(network).double(), labels).item()


def test_losses_are_those_of_one_quantized_layer(trained, split, measured):
    assert measured.reference.loss == pytest.approx(loss_of(trained.network, split), abs=1e-6)
    for layer, by_width in measured.alone.items():
        for bits, quality in by_width.items():
            state = only(trained, layer, bits)
            assert list(state.quantizers) == [layer]
            assert quality.loss == pytest.approx(loss_of(state.compressed(), split), abs=1e-6)
    assert measured.increase("3", 2) > 10 * abs(measured.increase("3", 8))


def test_bytes_are_those_that_inspect_reports(trained, measured, files, tmp_path):
    options = QuantizeOptions(symmetric=True, per_channel=True, range="mse", bits=4, layers={})
    size = write_artifact(tmp_path / "m.press", freeze_state(with_quantizers(trained, options)))
    facts = inspection(tmp_path / "m.press")
    stored = {tensor["name"]: tensor["bytes"] for tensor in facts["tensors"]}
    assert files.uniform(4).size_bytes == size == facts["size_bytes"]
    assert {f"{layer}.weight": by[4] for layer, by in measured.layer_bytes.items()}.items() <= stored.items()
    assert measured.sizes().shape == measured.costs().shape == (3, 3)


def test_the_network_is_left_as_it_was(trained, split):
    before = {key: value.clone() for key, value in trained.network.state_dict().items()}
    measure(WidthFiles(trained, QuantizeOptions()), split, (2,), Silent())
    assert all(torch.equal(value, before[key]) for key, value in trained.network.state_dict().items())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_proposal_keeps_its_budget_and_is_no_worse_than_uniform_widths(measured, files, share):
    small, large = files.uniform(2).size_bytes, files.uniform(8).size_bytes
    budget = round(small + share * (large - small))
    proposal = propose(measured, files, budget=budget)
    assert proposal.size_bytes <= budget
    for bits in BITS:
        if files.uniform(bits).size_bytes <= budget:
            assert measured.summed(proposal.bits) <= measured.summed(files.uniform(bits).bits)


def test_a_budget_for_everything_gets_the_widest(measured, files):
    assert set(propose(measured, files, budget=files.uniform(8).size_bytes).bits.values()) == {8}


def test_the_size_named_for_too_small_a_budget_can_be_reached(measured, files):
    with pytest.raises(
        InputError, match="a budget of 10 bytes is too small: .* has [0-9,]+ bytes; raise"
    ) as found:
        propose(measured, files, budget=10)
    named = int(str(found.value).split(" has ")[1].split(" bytes")[0].replace(",", ""))
    assert propose(measured, files, budget=named).size_bytes == named
    with pytest.raises(InputError, match=f"has {named:,} bytes"):
        propose(measured, files, budget=named - 1)


class PretendedFiles:
    """Files of twenty layers; those of several widths are larger than the sum of their parts."""

    def __init__(self, excess):
        self.layers = [f"layer{number}" for number in range(20)]
        self.excess = excess

    def uniform(self, bits):
        return self.mixed(dict.fromkeys(self.layers, bits))

    def mixed(self, bits):
        parts = {layer: width * (50 + 3 * number) for number, (layer, width) in enumerate(bits.items())}
        excess = self.excess * (len(set(bits.values())) > 1)
        return WidthFile(dict(bits), 700 + sum(parts.values()) + excess, parts, {})

    def sensitivity(self):
        rng = np.random.default_rng(3)
        return Sensitivity(
            dict.fromkeys(self.layers, 1),
            BITS,
            Quality(0.0, 1.0),
            {layer: {bits: Quality(rng.random() / 2**bits, 0.9) for bits in BITS} for layer in self.layers},
            {layer: {bits: self.uniform(bits).layer_bytes[layer] for bits in BITS} for layer in self.layers},
        )


@pytest.mark.parametrize("excess", [0, 1, 10, 100])
def test_a_budget_is_tightened_until_the_file_keeps_it(excess):
    files = PretendedFiles(excess)
    measured, smallest = files.sensitivity(), files.uniform(2)
    for budget in range(smallest.size_bytes + 500, files.uniform(8).size_bytes, 53):
        proposal = propose(measured, files, budget=budget)
        assert budget - 400 - 2 * excess <= proposal.size_bytes <= budget
        assert measured.summed(proposal.bits) < measured.summed(smallest.bits)


def test_masks_stay_in_place(trained):
    pruned = pruned_by_magnitude(
        replace(trained), Recipe().prune.model_copy(update={"exclude": (), "sparsity": 0.5})
    )
    weights = WidthFiles(pruned, QuantizeOptions()).uniform(3).weights
    for layer, mask in pruned.masks.items():
        assert torch.equal(weights[f"{layer}.weight"] == 0, ~mask)


def test_a_loss_that_is_no_number_is_refused(trained, split):
    torch.manual_seed(0)
    overflowing = nn.Sequential(nn.Conv2d(3, 10, 32), nn.Conv2d(10, 10, 1), nn.AdaptiveAvgPool2d(1), Flat())
    for layer in overflowing[:2]:
        nn.init.normal_(layer.weight, std=1e25)
    files = WidthFiles(NetworkState(overflowing, ModelOptions()), QuantizeOptions())
    with pytest.raises(InputError, match="the network's loss is nan, expected a finite number"):
        measure(files, split, (8,), Silent())


def rows_of(split):
    return {image.tobytes() for image in split.images}


def test_images_are_held_out_ones_and_never_test_images(images):
    assert len(rows_of(images.validation) & rows_of(images.test)) == 0
    blind = replace(images, test=Split(images.test.images[:0], images.test.labels[:0]))
    name, chosen = measuring_images(blind, limit=20, seed=1)
    assert (name, len(chosen)) == ("validation", 20)
    assert rows_of(chosen) <= rows_of(images.validation)
    assert rows_of(measuring_images(blind, limit=20, seed=1)[1]) == rows_of(chosen)
    assert rows_of(measuring_images(blind, limit=20, seed=2)[1]) != rows_of(chosen)
    assert len(measuring_images(blind, limit=10**6, seed=1)[1]) == len(images.validation)


def test_training_images_stand_in_for_an_empty_validation_split(images):
    name, chosen = measuring_images(images.hold_out(0), limit=20, seed=1)
    assert (name, len(chosen)) == ("training", 20)
    assert rows_of(chosen) <= rows_of(images.train)


@pytest.mark.parametrize("fraction", [0.0, 0.1])
def test_a_record_says_what_was_proposed_and_built(trained, images, fraction, tmp_path, capsys):
    recipe = Recipe(quantize=QuantizeOptions(per_channel=True, after=2, learned=True))
    work = Work(recipe=recipe, data=images.hold_out(fraction), device=choose_device("cpu"))
    record = run_sensitivity(trained, work, Question((2, 3, 8), None, 40))
    assert record["images"]["split"] == ("validation" if fraction else "training")
    assert record["budget_bytes"] >= record["proposal"]["size_bytes"]
    assert {layer["name"]: layer["proposed_bits"] for layer in record["layers"]} == record["proposal"]["bits"]
    show_sensitivity(record)
    assert record["proposal"]["recipe"] in capsys.readouterr().out
    snippet = tmp_path / "recipe.yaml"
    snippet.write_text(record["proposal"]["recipe"])
    options = load_recipe(snippet, {}).quantize
    assert (options.per_channel, options.after, options.learned) == (True, 2, True)
    if record["parameters"] == "float32":  # else the state that was packed is not the one at hand
        built = freeze_state(with_quantizers(trained, options))
        assert write_artifact(tmp_path / "m.press", built) == record["proposal"]["size_bytes"]


def test_one_width_for_all_layers_leaves_no_exceptions(tmp_path):
    snippet = tmp_path / "recipe.yaml"
    snippet.write_text(recipe_snippet(QuantizeOptions(), {"a": 5, "b": 5}))
    options = load_recipe(snippet, {}).quantize
    assert (options.bits, options.layers, options.range) == (5, {}, "mse")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "dense.safetensors"
    save_network(path, NetworkState(new_network(ModelOptions(), seed=0), ModelOptions()))
    return path


QUICKLY = ["--images", 2, "--device", "cpu"]


def test_the_command_prints_what_it_writes(checkpoint, tmp_path, call):
    output = tmp_path / "s.json"
    code, out, err = call(
        "sensitivity", checkpoint, *QUICKLY, "--bits", "8,2", "--budget", "160kB", "-o", output, "--json"
    )
    assert code == 0, err
    record = json.loads(out)
    assert record == json.loads(output.read_text())
    assert (record["schema_version"], record["kind"], record["bits"]) == (1, "sensitivity", [2, 8])
    assert record["environment"]["python"]
    assert record["recipe"]["model"]["checkpoint"] == checkpoint.name
    assert len(record["layers"]) == 22
    assert record["proposal"]["size_bytes"] <= record["budget_bytes"] == 160_000
    assert len(set(record["proposal"]["bits"].values())) == 2
    assert "body_op.6.id_mapping.0.conv" in err
    assert "quantize:\n  bits: " in err
    code, _, err = call("sensitivity", checkpoint, *QUICKLY, "-o", output)
    assert code == 1
    assert "exists; pass --overwrite" in one_line(err)


def test_the_table_finds_room_in_110_columns(capsys):
    widths = [{"bits": bits, "loss_increase": -0.9876} for bits in range(2, 9)]
    layer = {"name": "body_op.6.id_mapping.0.conv", "weights": 36_864, "widths": widths, "proposed_bits": 8}
    quality = {"loss": 1.0, "top1": 0.5}
    show_sensitivity(
        {
            "bits": list(range(2, 9)),
            "layers": [layer],
            "reference": quality,
            "uniform": [{"bits": 2, "size_bytes": 90_000, "loss": 0.5, "top1": 0.6}],
            "proposal": {"size_bytes": 100_000, **quality, "recipe": ""},
            "images": {"count": 2000, "split": "validation"},
            "budget_bytes": 100_000,
        }
    )
    shown = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 110
    assert "-987.6" in shown
    assert "with a smaller loss on these images: 2 bits in every layer" in shown


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--bits", "1,4", "whole numbers from 2 to 8"),
        ("--bits", "4,4", "twice"),
        ("--budget", "small", "a size"),
    ],
)
def test_options_are_checked_before_any_work(option, value, said, tmp_path, call):
    code, _, err = call("sensitivity", tmp_path / "none.pt", option, value, "-o", tmp_path / "s.json")
    assert (code, said in one_line(err)) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_quantized_network_is_refused(tmp_path, call):
    state = NetworkState(new_network(ModelOptions(), seed=0), ModelOptions())
    save_network(tmp_path / "q.safetensors", with_quantizers(state, QuantizeOptions()))
    code, _, err = call("sensitivity", tmp_path / "q.safetensors", *QUICKLY, "-o", tmp_path / "s.json")
    assert (code, "is quantized already" in one_line(err)) == (1, True)
    assert not (tmp_path / "s.json").exists()


def test_an_interrupt_leaves_nothing(checkpoint, tmp_path, call, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    scratch, output = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr(
        "modelpress.toolkit.studies.sensitivity.measuring.open_artifact", stopped
    )  # the first file has been written
    code, _, err = call("sensitivity", checkpoint, *QUICKLY, "--bits", "2", "-o", output / "s.json")
    assert (code, "Traceback" in err) == (130, False)
    assert list(scratch.iterdir()) == []
    assert not output.exists()
