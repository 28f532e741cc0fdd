import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modelpress.export.errors import InputError, ModelpressError
from modelpress.export.least_error import least_error_grid
from modelpress.toolkit.compression.freeze import freeze_state
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.network_file import new_network, save_network
from modelpress.toolkit.compression.passes.batch_norm import batch_norm
from modelpress.toolkit.compression.passes.finetune import finetune
from modelpress.toolkit.compression.passes.quantization_start import QuantizationStart
from modelpress.toolkit.compression.passes.quantize import with_quantizers
from modelpress.toolkit.compression.quantization.quantizers import QuantizerSpec
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.teacher import teacher_for
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.data.batches import EpochPlan, to_device
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.recipe import (
    DataOptions,
    ModelOptions,
    PruneOptions,
    QuantizeOptions,
    Recipe,
    TrainingOptions,
)
from modelpress.toolkit.training.averaging import WeightAverage
from modelpress.toolkit.training.batch_norm import BATCH, reestimate_batch_norm
from modelpress.toolkit.training.checkpoint import load_state
from modelpress.toolkit.training.feeds import ImageFeed
from modelpress.toolkit.training.interrupt import Interrupted
from modelpress.toolkit.training.losses import training_loss
from modelpress.toolkit.training.rules import Moment, TrainingRule
from tests.helpers.training import CPU, DIGITS, TRAIN, SignalAt, assert_same, fit, weights_of

PER_EPOCH = 5  # steps
IMAGES = replace(
    DIGITS, train=DIGITS.train.take(np.arange(160)), validation=DIGITS.validation.take(np.arange(40))
)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 12, 3, stride=2), nn.BatchNorm2d(12)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(12, 10)

    def forward(self, x):
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.conv2(x)))
        return self.fc(torch.flatten(self.pool(x), 1))


def tiny():
    torch.manual_seed(0)
    return Tiny()


def learned_network(spec=None):
    network = tiny()
    spec = spec or QuantizerSpec(3, learned=True)
    return CompressedNetwork(network, masks={}, quantizers={"conv1": spec, "conv2": spec})


# stopped and resumed

RECIPE = Recipe(
    data=DataOptions(validation=0.0),
    prune=PruneOptions(sparsity=0.7, exclude=(), schedule="cubic", epochs=2, updates_per_epoch=2),
    quantize=QuantizeOptions(bits=3, range="mse", learned=True, after=3, layers={"fc": 8}),
    finetune=TrainingOptions(
        epochs=5,
        batch=32,
        lr=0.02,
        padding=2,
        label_smoothing=0.1,
        distill_weight=0.5,
        average=0.9,
    ),
)


def finetuned(recipe=RECIPE, *, output=None, progress=None, resume=False):
    dense = NetworkState(CPU.place(tiny()), ModelOptions())
    teacher = teacher_for(recipe, dense, CPU)
    quantized = with_quantizers(dense, recipe.quantize)
    work = Work(
        recipe=recipe,
        data=IMAGES,
        device=CPU,
        progress=progress or Silent(),
        teacher=teacher,
        outputs={} if output is None else {"finetune": output},
        resume=resume,
    )
    return finetune(quantized, work)


@pytest.fixture(scope="module")
def uninterrupted():
    return finetuned()


def assert_same_states(left, right):
    assert_same(left.network.state_dict(), right.network.state_dict())
    assert_same(left.masks, right.masks)
    assert left.grids.keys() == right.grids.keys()
    for name, grid in left.grids.items():
        assert_same(grid, right.grids[name])


@pytest.mark.parametrize(
    "stop_after",
    [
        2,  # before the second of four prunings
        8,
        12,  # all is pruned, nothing quantized
        15,  # exactly where the quantization starts
        16,
        18,  # in the middle of the first epoch on the grid
        22,
    ],
)
def test_a_stopped_finetuning_goes_on_to_the_same_network(tmp_path, uninterrupted, stop_after):
    output = tmp_path / "finetuned.safetensors"
    with pytest.raises(Interrupted):
        finetuned(output=output, progress=SignalAt(stop_after))
    resumed = finetuned(output=output, resume=True)
    assert_same_states(uninterrupted, resumed)
    for kind in ("loss", "validation_top1", "sparsity", "learning_rate"):
        expected = [record[kind] for record in uninterrupted.history["finetune"]]
        found = [record[kind] for record in resumed.history["finetune"]]
        assert found == pytest.approx(expected, rel=1e-14), kind


def test_a_finetuning_stopped_twice_goes_on_to_the_same_network(tmp_path, uninterrupted):
    output = tmp_path / "finetuned.safetensors"
    for stop_after, resume in ((6, False), (11, True)):
        with pytest.raises(Interrupted):
            finetuned(output=output, progress=SignalAt(stop_after), resume=resume)
    assert_same_states(uninterrupted, finetuned(output=output, resume=True))


@pytest.mark.parametrize(
    "section",
    [
        {"prune": {"hold": False}},
        {"prune": {"sparsity": 0.6}},
        {"quantize": {"after": 2}},
        {"quantize": {"zero_point": "integer"}},
        {"quantize": {"range": "min-max"}},
        {"finetune": {"distill_temperature": 2.0}},
        {"finetune": {"average": 0.99}},
    ],
    ids=str,
)
def test_a_state_of_another_recipe_is_not_resumed(tmp_path, section):
    output = tmp_path / "finetuned.safetensors"
    with pytest.raises(Interrupted):
        finetuned(output=output, progress=SignalAt(1))
    (name, changes), *_ = section.items()
    other = RECIPE.model_copy(update={name: getattr(RECIPE, name).model_copy(update=changes)})
    with pytest.raises(InputError, match="of another network or with other options"):
        finetuned(other, output=output, resume=True)


def test_the_finetuned_network_is_pruned_and_on_its_grids(uninterrupted):
    weights = uninterrupted.compressed().effective_weights()
    for name, mask in uninterrupted.masks.items():
        assert not weights[name][~mask].any()
        assert len(torch.unique(weights[name][mask])) <= (2**8 if name == "fc" else 2**3)
    total = sum(mask.numel() for mask in uninterrupted.masks.values())
    removed = sum(int((~mask).sum()) for mask in uninterrupted.masks.values())
    assert removed == uninterrupted.history["prune"]["removed"] == round(0.7 * total)
    freeze_state(uninterrupted)  # refuses codes that are not what training used


# the start of the quantization


def test_weights_are_floats_before_the_quantization_and_on_new_grids_after():
    network = learned_network(QuantizerSpec(3, range="mse", learned=True))
    rule = QuantizationStart(network, 2)
    rule.begin(Moment(0, 0, PER_EPOCH))
    with torch.no_grad():
        network.dense_weight("conv1").mul_(2)
    for epoch, step in ((0, 0), (1, 0), (1, PER_EPOCH - 1)):
        assert rule.before_step(Moment(epoch, step, PER_EPOCH)) is False
        assert torch.equal(network.effective_weight("conv1"), network.dense_weight("conv1"))
    assert rule.before_step(Moment(2, 0, PER_EPOCH)) is True
    expected = least_error_grid(network.dense_weight("conv1"), network.quantizers["conv1"])
    assert torch.equal(network.grid("conv1").scale, expected.scale)
    assert len(torch.unique(network.effective_weight("conv1"))) <= 8
    with torch.no_grad():
        network.dense_weight("conv1").mul_(2)
    assert rule.before_step(Moment(2, 1, PER_EPOCH)) is False  # once is enough
    assert torch.equal(network.grid("conv1").scale, expected.scale)


@pytest.mark.parametrize(
    ("epoch", "step", "quantized"), [(1, 4, False), (2, 0, False), (2, 1, True), (3, 0, True)]
)
def test_a_resumed_training_is_quantized_if_it_was(epoch, step, quantized):
    network = learned_network()
    QuantizationStart(network, 2).begin(Moment(epoch, step, PER_EPOCH))
    assert network.quantized is quantized


# learned steps in training


def one_step(weight_decay, *, decay_grids=False):
    network = learned_network()
    options = TrainingOptions(epochs=1, batch=160, lr=0.1, padding=0, weight_decay=weight_decay)
    fit(network, options, undecayed=() if decay_grids else network.grid_parameters())
    return network.kept_grids(), network.dense_weight("conv1").detach()


def test_scales_and_centres_get_no_weight_decay():
    grids, weight = one_step(0.0)
    decayed_grids, decayed_weight = one_step(0.5)
    for name, grid in grids.items():
        assert_same(grid, decayed_grids[name])
    assert not torch.equal(weight, decayed_weight)
    assert not torch.equal(one_step(0.5, decay_grids=True)[0]["conv1"]["scale"], grids["conv1"]["scale"])


def test_training_moves_learned_grids_and_no_others():
    for spec in (
        QuantizerSpec(3, learned=True),
        QuantizerSpec(3, zero_point="integer", learned=True),
        QuantizerSpec(3, range="mse"),
    ):
        network = learned_network(spec)
        before = network.kept_grids()
        fit(network, undecayed=network.grid_parameters())
        for name, grid in network.kept_grids().items():
            assert torch.equal(grid["scale"], before[name]["scale"]) is not spec.learned
            movable = spec.learned and spec.zero_point == "float"
            assert torch.equal(grid["centre"], before[name]["centre"]) is not movable


def test_a_loss_that_is_not_finite_keeps_the_grids_of_the_last_epoch(tmp_path):
    state = tmp_path / "state.safetensors"
    options = TrainingOptions(epochs=3, batch=32, lr=0.02, padding=2, average=0.9)

    class Poison(TrainingRule):
        def __init__(self, network):
            self.network, self.good = network, {}

        def before_step(self, moment):
            if (moment.epoch, moment.step) == (1, 0):
                self.good = weights_of(self.network)
            if (moment.epoch, moment.step) == (1, 2):
                with torch.no_grad():
                    self.network.grid_parameters()[0].fill_(torch.inf)
            return False

    poisoned = learned_network()
    rule = Poison(poisoned)
    with pytest.raises(
        ModelpressError, match="loss is not finite in epoch 2; the last complete epoch is kept"
    ):
        fit(poisoned, options, rules=[rule], state_path=state)
    tensors, metadata = load_state(state)
    assert (metadata["position"]["epoch"], metadata["position"]["step"]) == (1, 0)
    kept = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    assert any("_grids" in name for name in kept)
    assert_same(rule.good, kept)
    straight, resumed = learned_network(), learned_network()
    fit(straight, options)
    fit(resumed, options, state_path=state, resume=True)
    assert_same(weights_of(straight), weights_of(resumed))


# losses

LOGITS = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
TEACHER = torch.randn(6, 10, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 3, 9, 9, 1, 2])


def gradient(teacher_logits, **options):
    logits = LOGITS.clone().requires_grad_()
    training_loss(logits, LABELS, teacher_logits, TrainingOptions(**options)).backward()
    return logits.grad


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_distillation_the_loss_is_cross_entropy(smoothing):
    expected = F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    for teacher_logits in (None, TEACHER):
        options = TrainingOptions(label_smoothing=smoothing, distill_weight=0)
        assert torch.equal(training_loss(LOGITS, LABELS, teacher_logits, options), expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_network_that_agrees_with_its_teacher_has_nothing_to_learn(temperature):
    found = gradient(LOGITS, distill_weight=1, distill_temperature=temperature)
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-7)
    options = TrainingOptions(distill_weight=1, distill_temperature=temperature)
    assert training_loss(LOGITS, LABELS, LOGITS, options).item() == pytest.approx(0, abs=1e-6)


def test_distillation_is_the_divergence_from_the_softened_teacher():
    a, t = 0.7, 3.0
    p = torch.softmax(TEACHER.double() / t, dim=1)
    q = torch.softmax(LOGITS.double() / t, dim=1)
    divergence = (p * (p.log() - q.log())).sum(dim=1).mean()
    expected = (1 - a) * F.cross_entropy(LOGITS.double(), LABELS) + a * t**2 * divergence
    options = TrainingOptions(distill_weight=a, distill_temperature=t)
    assert training_loss(LOGITS, LABELS, TEACHER, options).item() == pytest.approx(expected.item(), rel=1e-5)


def test_distilling_without_a_teacher_is_refused():
    with pytest.raises(InputError, match="there is no teacher to distil from"):
        fit(learned_network(), TrainingOptions(epochs=1, distill_weight=0.5))


def test_the_teacher_is_a_copy_that_training_leaves_alone():
    dense = NetworkState(CPU.place(tiny()), ModelOptions())
    teacher = teacher_for(RECIPE, dense, CPU)
    before = weights_of(teacher)
    student = learned_network()
    fit(student, TrainingOptions(epochs=1, batch=32, distill_weight=1), teacher=teacher)
    assert_same(before, weights_of(teacher))
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in dense.network.parameters())


def test_no_teacher_is_made_where_none_is_needed():
    recipe = RECIPE.model_copy(update={"finetune": TrainingOptions(epochs=5)})
    assert teacher_for(recipe, NetworkState(tiny(), ModelOptions()), CPU) is None


def test_a_teacher_of_other_classes_is_refused(tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_network(path, NetworkState(new_network(ModelOptions(), seed=0, n_classes=7), ModelOptions()))
    recipe = RECIPE.model_copy(update={"model": ModelOptions(teacher=str(path))})
    with pytest.raises(InputError, match="has 7 classes, the network 10: choose one trained on the same"):
        teacher_for(recipe, NetworkState(tiny(), ModelOptions()), CPU)


# averages


class Walk(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0]))
        self.register_buffer("mean", torch.tensor(4.0))
        self.register_buffer("count", torch.tensor(0))

    def step(self):
        with torch.no_grad():
            self.weight.mul_(1.5).add_(0.25)
            self.mean.sub_(1)
            self.count.add_(1)


def test_the_average_is_the_exponential_one():
    network, decay = Walk(), 0.4
    average = WeightAverage(network, decay)
    weight, mean = network.weight.detach().double(), network.mean.double()
    for n_steps in range(12):
        network.step()
        average.update(n_steps)
        d = min(decay, (1 + n_steps) / (10 + n_steps))
        weight = d * weight + (1 - d) * network.weight.detach().double()
        mean = d * mean + (1 - d) * network.mean.double()
    torch.testing.assert_close(average.values["weight"].double(), weight, rtol=1e-6, atol=0)
    torch.testing.assert_close(average.values["mean"].double(), mean, rtol=1e-6, atol=0)
    assert average.values.keys() == {"weight", "mean"}


def test_exchanging_twice_changes_nothing():
    network = Walk()
    average = WeightAverage(network, 0.9)
    network.step()
    average.update(0)
    before, kept = weights_of(network), {n: v.clone() for n, v in average.values.items()}
    average.swap()
    assert_same({n: v for n, v in weights_of(network).items() if n != "count"}, kept)
    assert network.count == 1
    average.swap()
    assert_same(weights_of(network), before)
    assert_same(average.values, kept)


def test_a_restarted_average_is_the_network_of_the_moment():
    network = Walk()
    average = WeightAverage(network, 0.9)
    network.step()
    average.restart()
    assert torch.equal(average.values["weight"], network.weight)
    network.step()
    assert not torch.equal(average.values["weight"], network.weight)  # a copy


class Recorder(TrainingRule):
    """Remembers the weights of one layer after every step."""

    def __init__(self, network):
        self.network, self.seen = network, []

    def after_step(self, learning_rate, progress):
        self.seen.append(self.network.dense_weight("fc").detach().clone())


def test_a_training_ends_with_the_average_of_its_steps():
    network = learned_network()
    expected, rule = network.dense_weight("fc").detach().double(), Recorder(network)
    fit(network, TrainingOptions(epochs=2, batch=32, lr=0.02, average=0.5), rules=[rule])
    for n_steps, weight in enumerate(rule.seen):
        d = min(0.5, (1 + n_steps) / (10 + n_steps))
        expected = d * expected + (1 - d) * weight.double()
    ended = network.dense_weight("fc").detach()
    assert not torch.equal(ended, rule.seen[-1])
    torch.testing.assert_close(ended.double(), expected, rtol=1e-4, atol=1e-6)


def test_the_average_restarts_when_the_quantization_starts():
    network = learned_network()
    rule = Recorder(network)
    options = TrainingOptions(epochs=2, batch=160, lr=0.1, average=0.9)  # one step per epoch
    fit(network, options, rules=[QuantizationStart(network, 1), rule])
    first, second = rule.seen
    d = 2 / 11
    expected = d * first + (1 - d) * second  # nothing of where the training began
    torch.testing.assert_close(network.dense_weight("fc").detach(), expected, rtol=1e-5, atol=1e-7)


# batch-norm statistics

MANY = to_device(DIGITS.train.take(np.arange(600)), DIGITS, CPU.torch_device, padding=4)


def feed_of(split, *, seed=0, mirror=False, size=BATCH):
    return ImageFeed(split, size, CPU, seed, mirror)


def spoiled(momentum=0.1):
    network = tiny()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
            module.running_mean.fill_(100.0)
            module.running_var.fill_(1e-3)
    return CompressedNetwork(network, masks={}, quantizers={})


@pytest.mark.parametrize(("n_images", "n_used"), [(600, 500), (10_000, 500), (300, 250), (1, 250)])
def test_statistics_are_those_of_augmented_images(n_images, n_used):
    network = spoiled()
    used = reestimate_batch_norm(network, feed_of(MANY, seed=3, mirror=True), n_images=n_images)
    assert used == n_used
    plan = EpochPlan.draw(MANY, seed=3, epoch=0, mirror=True)
    means, variances = [], []
    for step in range(n_used // 250):
        images, _ = plan.batch(MANY, step, size=250)
        values = network.network.conv1(images).detach().double()
        means.append(values.mean(dim=(0, 2, 3)))
        variances.append(values.var(dim=(0, 2, 3)))
    norm = network.network.norm1
    torch.testing.assert_close(
        norm.running_mean.double(), torch.stack(means).mean(dim=0), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        norm.running_var.double(), torch.stack(variances).mean(dim=0), rtol=1e-4, atol=0
    )


def test_statistics_of_a_trained_network_are_found_again():
    """Plain averages over many batches agree with the running ones of a training at rate (almost) zero."""
    network = CompressedNetwork(tiny(), masks={}, quantizers={})
    split = MANY
    trained = copy.deepcopy(network)
    trained.train()
    with torch.no_grad():
        for epoch in range(12):
            plan = EpochPlan.draw(split, seed=epoch, epoch=epoch, mirror=False)
            for step in range(2):
                trained(plan.batch(split, step, size=250)[0])
    reestimate_batch_norm(network, feed_of(split, seed=0, mirror=False), n_images=600)
    for ours, theirs in (
        (network.network.norm1, trained.network.norm1),
        (network.network.norm2, trained.network.norm2),
    ):
        scale = theirs.running_var.sqrt()
        start = 0.9**24  # of the first values, 0 and 1, in the running ones
        assert bool(((ours.running_mean * (1 - start) - theirs.running_mean).abs() < 0.1 * scale).all())
        assert bool(((ours.running_var * (1 - start) + start) / theirs.running_var - 1).abs().max() < 0.1)


@pytest.mark.parametrize("momentum", [0.1, None, 0.3])
def test_measuring_statistics_leaves_everything_else_alone(momentum):
    network = spoiled(momentum)
    before = {n: v for n, v in weights_of(network).items() if "running" not in n and "num_" not in n}
    reestimate_batch_norm(network, feed_of(MANY, seed=0, mirror=False), n_images=250)
    after = weights_of(network)
    assert_same(before, {name: after[name] for name in before})
    assert not network.training
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.momentum == momentum
            assert not module.training


def test_statistics_are_the_same_every_time():
    first, second = spoiled(), spoiled()
    for network in (first, second):
        reestimate_batch_norm(network, feed_of(MANY, seed=1, mirror=True), n_images=500)
    assert_same(weights_of(first), weights_of(second))
    reestimate_batch_norm(second, feed_of(MANY, seed=2, mirror=True), n_images=500)
    assert not torch.equal(first.network.norm1.running_mean, second.network.norm1.running_mean)


def test_few_images_are_all_taken():
    assert reestimate_batch_norm(spoiled(), feed_of(TRAIN, size=160), n_images=5000) == 160


def test_statistics_are_measured_with_compressed_weights():
    quantize = QuantizeOptions(bits=2, layers={}, batch_norm_images=250)
    recipe = RECIPE.model_copy(update={"quantize": quantize})
    state = with_quantizers(NetworkState(spoiled().network, ModelOptions()), quantize)
    measured = batch_norm(state, Work(recipe=recipe, data=IMAGES, device=CPU))
    assert measured.history["batch_norm"] == {"images": 160}
    split = to_device(IMAGES.train, IMAGES, CPU.torch_device, padding=recipe.finetune.padding)
    images, _ = EpochPlan.draw(split, seed=recipe.seed, epoch=0, mirror=IMAGES.mirrored).batch(
        split, 0, size=160
    )
    compressed = measured.compressed()
    conv = measured.network.conv1
    values = F.conv2d(images, compressed.effective_weight("conv1"), conv.bias, stride=conv.stride)
    found = measured.network.norm1.running_mean
    torch.testing.assert_close(found, values.mean(dim=(0, 2, 3)).detach(), rtol=1e-4, atol=1e-5)
    untouched = batch_norm(state, Work(recipe=RECIPE, data=IMAGES, device=CPU))
    assert untouched is state
