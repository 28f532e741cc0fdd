"""The chain: which passes a recipe asks for, what is kept of them and who is told."""

from dataclasses import replace

import numpy as np
import pytest

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.network_file import load_network, save_network
from modelpress.toolkit.compression.run import (
    compress,
    passes_of,
    prune_network,
    quantize_network,
    train_network,
)
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work, network_files
from modelpress.toolkit.recipe import DataOptions, ModelOptions, PruneOptions, QuantizeOptions, Recipe
from modelpress.toolkit.recipe import FinetuneOptions as Training
from tests.helpers.training import CPU, DIGITS, tiny_network, weights_of

IMAGES = replace(
    DIGITS, train=DIGITS.train.take(np.arange(64)), validation=DIGITS.validation.take(np.arange(20))
)
ONE_EPOCH = Training(epochs=1, batch=32, lr=0.02, padding=2)
AFTER_PRUNING = ["quantize", "finetune", "batch_norm", "half_parameters"]
BY_PENALTY = {"method": "trimmed-l1", "sparsity": 0.5, "penalty": 2.0}
SCHEDULED = {"schedule": "linear", "epochs": 1}


def recipe_of(prune=None, **quantize):
    return Recipe(
        data=DataOptions(validation=0.0),
        prune=PruneOptions(exclude=(), **(prune or {})),
        quantize=QuantizeOptions(layers={}, **quantize),
        sparsify=ONE_EPOCH,
        finetune=ONE_EPOCH.model_copy(update={"epochs": 2}),
    )


@pytest.mark.parametrize(
    ("prune", "first"),
    [({}, ["prune"]), (BY_PENALTY, ["sparsify"]), (SCHEDULED, []), ({"sparsity": 0}, ["prune"])],
)
def test_a_recipe_prunes_in_one_way(prune, first):
    assert [each.__name__ for each in passes_of(recipe_of(prune))] == [*first, *AFTER_PRUNING]


@pytest.mark.parametrize(
    ("recipe", "points"),
    [
        (recipe_of(), ["pruned", "quantized", "finetuned"]),
        (recipe_of(BY_PENALTY), ["pruned", "quantized", "finetuned"]),
        (recipe_of(after=1), ["pruned", "finetuned"]),
        (recipe_of(SCHEDULED), ["finetuned"]),
    ],
    ids=["at once", "by penalty", "quantized later", "on a schedule"],
)
def test_watchers_see_every_point_that_there_is(recipe, points, tmp_path):
    seen = {}
    work = Work(
        recipe=recipe,
        data=IMAGES,
        device=CPU,
        outputs=network_files(tmp_path),
        watch=seen.setdefault,
    )
    compressed = compress(NetworkState(tiny_network().network, ModelOptions()), work)
    assert list(seen) == points
    assert seen["finetuned"].masks.keys() == compressed.masks.keys()

    kept = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    by_penalty = {"pruned.safetensors"} if recipe.prune.by_penalty else set()
    assert kept == {"checkpoint.safetensors", *by_penalty}


def test_without_outputs_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compress(
        NetworkState(tiny_network().network, ModelOptions()),
        Work(recipe=recipe_of(), data=IMAGES, device=CPU),
    )
    assert list(tmp_path.iterdir()) == []


def test_the_stages_as_functions(tmp_path):
    dense, pruned, quantized = (tmp_path / f"{name}.safetensors" for name in ("dense", "pruned", "quantized"))
    recipe = Recipe(run={"device": "cpu"})
    untrained = recipe.model_copy(update={"train": Training(epochs=0), "finetune": Training(epochs=0)})

    made = train_network(untrained, dense)
    assert made.epochs == []
    assert 0 <= made.validation_top1 <= 1

    started = untrained.model_copy(update={"model": ModelOptions(checkpoint=str(dense))})
    assert prune_network(started, pruned).validation_top1 is None  # no images were read
    again = untrained.model_copy(update={"model": ModelOptions(checkpoint=str(pruned))})
    state = quantize_network(again, quantized).state
    read = load_network(quantized, ModelOptions())
    assert read.quantizers == state.quantizers
    before, after = weights_of(state.network), weights_of(read.network)
    assert all(before[name].equal(after[name]) for name in before)
    assert {path.name for path in tmp_path.iterdir()} == {dense.name, pruned.name, quantized.name}


def test_there_must_be_a_network_to_prune(tmp_path):
    with pytest.raises(InputError, match="no network to prune: set model.checkpoint"):
        prune_network(Recipe(), tmp_path / "p.safetensors")


def test_a_network_that_finetuning_prunes_is_not_pruned_before(tmp_path):
    path = tmp_path / "dense.safetensors"
    save_network(path, NetworkState(tiny_network().network, ModelOptions()))
    model = ModelOptions(checkpoint=str(path))
    recipe = recipe_of(SCHEDULED).model_copy(update={"model": model})
    with pytest.raises(InputError, match="this recipe removes weights while it finetunes"):
        prune_network(recipe, tmp_path / "p.safetensors")
