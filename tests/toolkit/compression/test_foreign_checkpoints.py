"""Checkpoints that other programs wrote, on their way through the chain."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from modelpress.export.errors import InputError
from modelpress.export.graphs.parts import metadata
from modelpress.export.press.reading import read_artifact
from modelpress.toolkit.compression.network_file import load_network, new_network, save_network
from modelpress.toolkit.compression.passes.prune import pruned_by_magnitude
from modelpress.toolkit.compression.passes.quantize import with_quantizers
from modelpress.toolkit.compression.passes.train import train
from modelpress.toolkit.compression.run import compress
from modelpress.toolkit.compression.starting import check_dense, images_for, start, starting_network
from modelpress.toolkit.compression.state import InputContract, NetworkState
from modelpress.toolkit.compression.teacher import teacher_for
from modelpress.toolkit.data.data_set import normalised
from modelpress.toolkit.data.digits import load_digits
from modelpress.toolkit.networks.layers import weight_layers
from modelpress.toolkit.networks.renormalised import RenormalisedTeacher
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.recipe import ModelOptions, PruneOptions, QuantizeOptions, Recipe, load_recipe
from modelpress.toolkit.training.device import device_of
from tests.helpers.paths import SHARED

DIGITS = load_digits()
CPU = device_of(Recipe().run.model_copy(update={"device": "cpu"}))
OTHER = {"mean": (0.3, 0.3, 0.3), "std": (0.5, 0.25, 0.5)}
TEACHER_NORMALISATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def written(path, change=lambda name, value: value, *, seed=0, prefix="", wrap=lambda state: state):
    """A checkpoint of a fresh ResNet-20, its tensors changed by name."""
    state = new_network(ModelOptions(), seed=seed).state_dict()
    torch.save(wrap({prefix + name: change(name, value) for name, value in state.items()}), path)
    return path


def pruned_elsewhere(name, value):
    """Every second weight of the convolutions in the body is zero."""
    if not name.startswith("body_op") or value.ndim != 4:
        return value
    keep = (torch.arange(value.numel()) % 2).bool().reshape(value.shape)
    return torch.where(keep, value, 0.0)


def recipe_of(path, **overrides):
    return load_recipe(None, {"model.checkpoint": str(path), "run.device": "cpu"} | overrides)


# reading


def test_prefixes_and_nesting_are_told_and_recorded(tmp_path):
    path = written(tmp_path / "c.th", prefix="module.", wrap=lambda state: {"state_dict": state, "epoch": 3})
    state = load_network(path, ModelOptions())
    assert state.notes == (
        "c.th: not read beside 'state_dict': epoch",
        "c.th: 'module' was taken out of the names",
    )
    assert state.history["checkpoint"]["notes"] == [note.removeprefix("c.th: ") for note in state.notes]


def test_a_checkpoint_as_it_should_be_leaves_no_trace(tmp_path):
    state = load_network(written(tmp_path / "c.pt"), ModelOptions())
    assert (state.notes, state.history, state.masks, state.contract) == ((), {}, {}, None)


def test_the_notes_are_told_once(tmp_path):
    path = written(tmp_path / "c.pt", prefix="module.")
    told = []

    class Told(Silent):
        def note(self, text):
            told.append(text)

    state, _ = start(recipe_of(path), progress=Told())
    assert told == ["c.pt: 'module' was taken out of the names"]
    save_network(tmp_path / "n.safetensors", state)
    assert load_network(tmp_path / "n.safetensors", ModelOptions()).notes == ()


def test_a_checkpoint_of_other_depth_is_refused(tmp_path):
    path = written(tmp_path / "c.pt")
    with pytest.raises(InputError, match=rf"checkpoint {path} does not fit the network: 70 missing"):
        load_network(path, ModelOptions(arch="resnet32", map_names=True))


def test_a_checkpoint_of_other_classes_is_refused_for_this_data_set(tmp_path):
    path = tmp_path / "c.pt"
    torch.save(new_network(ModelOptions(), seed=0, n_classes=7).state_dict(), path)
    with pytest.raises(InputError, match="has 7 classes, digits 10: choose the data set it was trained on"):
        starting_network(recipe_of(path), DIGITS, CPU)


def test_the_classes_are_those_of_the_output_wherever_the_classifier_stands(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head, self.body = nn.Linear(4, 10), nn.Conv2d(3, 4, 3)\n"
        "    def forward(self, x):\n"
        "        return self.head(self.body(x).mean((2, 3)))\n"
    )
    factory = {"model.factory": f"{tmp_path / 'mine.py'}:Net"}
    network = new_network(ModelOptions(factory=factory["model.factory"]), seed=0)
    torch.save(network.state_dict(), tmp_path / "c.pt")
    recipe = recipe_of(tmp_path / "c.pt", **factory)
    state = starting_network(recipe, DIGITS, CPU)
    again = {"model.teacher": str(tmp_path / "c.pt"), "finetune.distill_weight": 0.5}
    assert teacher_for(recipe_of(tmp_path / "c.pt", **factory, **again), state, CPU) is not None


def test_half_precision_is_read_and_told(tmp_path):
    path = written(tmp_path / "c.pt", lambda name, value: value.half() if value.ndim == 4 else value)
    state = load_network(path, ModelOptions())
    assert state.notes == ("c.pt: 21 tensors were float16, are float32: the values are the same",)


# zeros


def test_zeros_of_a_checkpoint_are_kept_by_quantization(tmp_path):
    state = load_network(written(tmp_path / "c.pt", pruned_elsewhere), ModelOptions())
    assert all(name.startswith("body_op") for name in state.masks)
    assert len(state.masks) == 20
    assert "weights in 20 layers are exactly zero and stay so" in state.notes[0]
    assert state.history["checkpoint"]["zeros_kept"]["body_op.0.conv1.0.conv"] == 16 * 16 * 9 // 2

    quantized = with_quantizers(state, QuantizeOptions()).compressed()
    for name, mask in state.masks.items():
        assert torch.equal(quantized.effective_weight(name) == 0, ~mask)


def test_zeros_are_weights_like_others_where_the_recipe_says_so(tmp_path):
    path = written(tmp_path / "c.pt", pruned_elsewhere)
    state = load_network(path, ModelOptions(keep_zeros=False))
    assert not state.masks
    assert not state.history
    quantized = with_quantizers(state, QuantizeOptions(zero_point="float")).compressed()
    assert (quantized.effective_weight("body_op.0.conv1.0.conv") != 0).all()


def test_pruning_adds_to_the_zeros_that_were_there(tmp_path):
    state = load_network(written(tmp_path / "c.pt", pruned_elsewhere), ModelOptions())
    check_dense(state)
    before = {name: mask.clone() for name, mask in state.masks.items()}
    pruned = pruned_by_magnitude(state, PruneOptions(sparsity=0.7))
    assert all(not pruned.masks[name][~mask].any() for name, mask in before.items())
    assert pruned.history["prune"]["removed"] == round(0.7 * pruned.history["prune"]["prunable"])
    with pytest.raises(InputError, match="pruned already"):
        check_dense(pruned)


def test_training_holds_the_zeros(tmp_path):
    recipe = recipe_of(
        written(tmp_path / "c.pt", pruned_elsewhere),
        **{"prune.sparsity": 0, "finetune.epochs": 1, "finetune.batch": 16, "run.bf16": False},
    )
    state, work = start(recipe, progress=Silent())
    check_dense(state)
    compressed = compress(state, with_few_images(work))
    for name, mask in compressed.masks.items():
        assert torch.equal(compressed.compressed().effective_weight(name) == 0, ~mask)
        assert mask.float().mean() == pytest.approx(0.5, abs=1e-3)


# normalisation


def test_images_come_as_the_network_expects_them(tmp_path):
    recipe = recipe_of(written(tmp_path / "c.pt"), **{"model.normalisation": OTHER})
    state, work = start(recipe, progress=Silent())
    assert (work.data.mean, work.data.std) == (OTHER["mean"], OTHER["std"])
    assert state.contract == InputContract("digits", DIGITS.class_names, OTHER["mean"], OTHER["std"])

    save_network(tmp_path / "n.safetensors", state)
    again, work = start(recipe_of(tmp_path / "n.safetensors"), progress=Silent())  # the file knows
    assert again.contract == state.contract
    assert work.data.mean == OTHER["mean"]


def test_without_a_word_the_data_set_normalises(tmp_path):
    state = starting_network(recipe_of(written(tmp_path / "c.pt")), DIGITS, CPU)
    assert state.contract == InputContract.of(DIGITS)
    assert images_for(state, DIGITS) == DIGITS


def test_a_new_network_is_trained_with_the_normalisation_asked_for():
    state, work = start(load_recipe(None, {"model.normalisation": OTHER}), progress=Silent())
    assert state.contract.mean == work.data.mean == OTHER["mean"]


def test_a_recipe_that_contradicts_the_network_file_is_refused(tmp_path):
    path = tmp_path / "n.safetensors"
    network = new_network(ModelOptions(), seed=0)
    save_network(path, NetworkState(network, ModelOptions(), contract=InputContract.of(DIGITS)))
    with pytest.raises(
        InputError, match="was trained with mean .* model.normalisation says mean .*: leave it out"
    ):
        starting_network(recipe_of(path, **{"model.normalisation": OTHER}), DIGITS, CPU)


def test_a_normalisation_of_other_channels_is_refused(tmp_path):
    grey = {"mean": [0.5], "std": [0.5]}
    with pytest.raises(InputError, match="model.normalisation has 1 channels, digits has 3"):
        starting_network(recipe_of(written(tmp_path / "c.pt"), **{"model.normalisation": grey}), DIGITS, CPU)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"mean": [0.5]}, "model.normalisation.std is missing"),
        ({"mean": [0.5], "std": [0]}, "model.normalisation.std.0 is 0: input should be greater than 0"),
        ({"mean": [0.5, 0.5], "std": [1]}, "mean has 2 values, std 1: give one of each per channel"),
        ({"mean": [], "std": []}, "model.normalisation.mean is \\[\\]"),
        ({"mean": [0.5], "std": [1], "scale": 2}, "unknown key 'model.normalisation.scale'"),
        (0.5, "model.normalisation is 0.5"),
    ],
)
def test_bad_normalisations_are_named(value, message):
    with pytest.raises(InputError, match=message):
        load_recipe(None, {"model.normalisation": value})


def test_the_normalisation_can_be_set_key_by_key_and_survives_being_written():
    recipe = load_recipe(None, {f"model.normalisation.{key}": value for key, value in OTHER.items()})
    assert recipe.model.normalisation.model_dump() == OTHER
    assert "model.normalisation: mean=(0.3, 0.3, 0.3) std=(0.5, 0.25, 0.5)" in repr(recipe)


def test_the_artifact_tells_the_normalisation(tmp_path, call):
    path = written(tmp_path / "c.pt")
    stated = json.dumps({key: list(value) for key, value in OTHER.items()})
    press = tmp_path / "m.press"
    assert call("pack", path, "--set", f"model.normalisation={stated}", "-o", press)[0] == 0
    facts = metadata(read_artifact(press).graph)
    assert json.loads(facts["modelpress.input"])["mean"] == list(OTHER["mean"])
    assert "modelpress.dataset" not in facts  # nobody said


# teachers


def test_a_teacher_sees_the_batch_in_its_own_normalisation(tmp_path):
    path = written(tmp_path / "t.pt", seed=5)
    recipe = load_recipe(
        None,
        {"model.teacher": str(path), "model.teacher_normalisation": OTHER, "finetune.distill_weight": 0.5},
    )
    dense = replace(
        NetworkState(new_network(ModelOptions(), seed=0), ModelOptions()), contract=InputContract.of(DIGITS)
    )
    teacher = teacher_for(recipe, dense, CPU)
    assert isinstance(teacher, RenormalisedTeacher)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())

    images = DIGITS.test.images[:8]
    alone = load_network(path, ModelOptions()).network.eval()
    with torch.no_grad():
        found = teacher(torch.from_numpy(normalised(images, DIGITS.mean, DIGITS.std)))
        expected = alone(torch.from_numpy(normalised(images, OTHER["mean"], OTHER["std"])))
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_teacher_with_the_same_normalisation_is_not_wrapped(tmp_path):
    path = written(tmp_path / "t.pt", seed=5)
    recipe = load_recipe(None, {"model.teacher": str(path), "finetune.distill_weight": 0.5})
    dense = NetworkState(new_network(ModelOptions(), seed=0), ModelOptions())
    assert not isinstance(teacher_for(recipe, dense, CPU), RenormalisedTeacher)


def test_a_network_trained_from_scratch_distils_from_a_teacher_by_name(tmp_path):
    options = {"train.epochs": 1, "train.batch": 16, "run.device": "cpu", "run.bf16": False}
    taught = {"train.distill_weight": 1, "model.teacher": str(written(tmp_path / "t.pt", seed=5))}
    alone, pupil = (trained_a_little(load_recipe(None, given)) for given in (options, options | taught))
    assert any(not torch.equal(alone[name], pupil[name]) for name in alone)


def trained_a_little(recipe):
    state, work = start(recipe, progress=Silent())
    return weight_layers(train(state, with_few_images(work)).network)


def with_few_images(work):
    images = work.data
    few = replace(images, train=images.train.take(np.arange(32)), validation=images.train.take(np.arange(8)))
    return replace(work, data=few)


# the command line


def renamed(name):
    return name.replace("body_op", "blocks").replace("head_conv", "stem").replace("final_fc.linear", "fc")


def test_other_names_are_shown_and_used_when_asked_for(tmp_path, call):
    own = new_network(ModelOptions(), seed=3).state_dict()
    path = tmp_path / "c.pt"
    torch.save({renamed(name): value for name, value in own.items()}, path)

    code, _, err = call("pack", path, "-o", tmp_path / "a.press")
    assert code == 1
    *table, error = err.strip().splitlines()
    assert (
        len(table) == 43
    )  # 22 convolutions and the linear layer, 21 batch norms... less one for each identity
    assert table[0].split() == ["stem.0.conv", "→", "head_conv.0.conv", "weight", "(16,", "3,", "3,", "3)"]
    assert "use it with --map-names" in error
    assert not (tmp_path / "a.press").exists()

    assert call("pack", path, "--map-names", "-o", tmp_path / "a.press")[0] == 0
    torch.save(own, tmp_path / "own.pt")
    assert call("pack", tmp_path / "own.pt", "-o", tmp_path / "b.press")[0] == 0
    assert (tmp_path / "a.press").read_bytes() == (tmp_path / "b.press").read_bytes()


def test_names_of_an_onnx_model_are_not_mapped(tmp_path, call):
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08\x12\x00")
    code, _, err = call("pack", tmp_path / "m.onnx", "--map-names", "-o", tmp_path / "a.press")
    assert code == 2
    assert "--map-names is for network files; an ONNX model has no recipe" in err


def test_a_file_that_does_not_say_its_data_set_shows_so(tmp_path):
    state = load_network(written(tmp_path / "c.pt"), ModelOptions(normalisation=OTHER))
    assert state.contract.dataset is None
    assert state.summary()["trained on"] == "unknown"


# the real one


@pytest.fixture(scope="module")
def real_teacher():
    path = SHARED / "checkpoints" / "resnet56_cifar10_teacher.th"
    if not path.is_file():
        pytest.skip(f"needs the public ResNet-56 at {path}; set MODELPRESS_SHARED")
    return path


def test_a_public_teacher_scores_and_teaches_a_network_of_another_normalisation(
    real_teacher, real_checkpoint, cifar10_folder
):
    recipe = load_recipe(
        None,
        {
            "data.dataset": "cifar10",
            "data.dir": str(cifar10_folder),
            "model.checkpoint": str(real_checkpoint),
            "model.map_names": True,
            "model.teacher": str(real_teacher),
            "model.teacher_arch": "resnet56",
            "model.teacher_shortcut": "A",
            "model.teacher_normalisation": TEACHER_NORMALISATION,
            "train.distill_weight": 0.5,
            "run.device": "cpu",
        },
    )
    state, work = start(recipe, progress=Silent())
    teacher = work.with_teacher(state).teacher
    assert isinstance(teacher, RenormalisedTeacher)

    few = work.data.test.take(np.arange(500))
    shown = torch.from_numpy(normalised(few.images, work.data.mean, work.data.std))
    own = torch.from_numpy(normalised(few.images, *TEACHER_NORMALISATION.values()))
    with torch.inference_mode():
        found, expected = teacher(shown), teacher.network(own)
    assert torch.allclose(found, expected, atol=1e-4)
    assert (found.argmax(dim=1).numpy() == few.labels).mean() >= 0.93  # of all 9,982 images: 93.39 %
