"""Tasks, optimisers, schedules, augmentation and streaming: what training does beside classes by SGD."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.run import train_network
from modelpress.toolkit.data.options import DataOptions, TaskOptions
from modelpress.toolkit.data.own_data import load_own
from modelpress.toolkit.recipe import TrainingOptions, load_recipe
from modelpress.toolkit.training.augmentation import AUGMENTATIONS, augmented
from modelpress.toolkit.training.examples import in_order, placed
from modelpress.toolkit.training.feeds import ExampleFeed
from modelpress.toolkit.training.interrupt import Interrupted
from modelpress.toolkit.training.losses import TaskLoss, training_loss
from modelpress.toolkit.training.optimisers import learning_rate_at
from tests.helpers.training import CPU, OPTIONS, SignalAt, assert_same, fit, tiny_network, weights_of

RNG = np.random.default_rng(0)
NETWORKS = """
from torch import nn
def table(out=3): return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, out))
def places(): return nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 4))
"""


def with_options(**options):
    return OPTIONS.model_copy(update=options)


@pytest.fixture
def own(tmp_path):
    """Trains a small network on arrays of a user's; returns what was made."""
    (tmp_path / "nets.py").write_text(NETWORKS)

    def train(inputs, targets, network="table", **settings):
        np.savez(tmp_path / "own.npz", x=inputs, targets=targets)
        recipe = {
            "data.source": str(tmp_path / "own.npz"),
            "model.factory": f"{tmp_path}/nets.py:{network}",
            "train.epochs": 6,
            "train.batch": 16,
            "train.lr": 0.05,
            "run.device": "cpu",
            "run.bf16": False,
            **settings,
        }
        return train_network(load_recipe(None, recipe), tmp_path / "n.safetensors", overwrite=True)

    return train


X = RNG.normal(size=(200, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("task", "targets", "settings"),
    [
        ("classification", np.digitize(X[:, 0], [-0.4, 0.4]), {"task.class_weights": "balanced"}),
        ("multi-label", (X[:, :3] > 0).astype(int), {"task.class_weights": "balanced"}),
        ("regression", X[:, :2] * 2, {"model.arguments": {"out": 2}, "train.lr": 0.02}),
    ],
)
def test_every_task_is_learnt_and_judged_by_its_metric(own, task, targets, settings):
    made = own(X, targets, **{"task.kind": task, **settings})
    key = "validation_top1" if task == "classification" else "validation"
    figures = [epoch[key] for epoch in made.epochs]
    assert made.metric.better(figures[-1], figures[0])
    assert figures[-1] == made.validation_top1


def test_sequences_are_learnt_and_places_without_a_class_left_out(own):
    tokens = RNG.integers(0, 9, (120, 5))
    labels = np.where(RNG.random((120, 5)) < 0.2, -100, tokens % 4)
    made = own(tokens, labels, "places", **{"task": "sequence", "train.optimizer": "adamw", "train.lr": 0.03})
    assert made.metric.name == "places right"
    assert made.validation_top1 > 0.9


def test_a_loss_and_a_metric_of_ones_own_are_used_and_named_when_they_fail(own, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def loss(outputs, targets): return (outputs - targets).abs().mean()\n"
        "def close(outputs, targets): return np.abs(outputs - targets).max(axis=1) < 0.5\n"
        "def broken(outputs, targets): raise ValueError('shapes')\n"
    )
    settings = {
        "task.kind": "regression",
        "model.arguments": {"out": 2},
        "task.metric": f"{tmp_path}/mine.py:close",
    }
    made = own(X, X[:, :2], **settings, **{"task.loss": f"{tmp_path}/mine.py:loss"})
    assert made.metric.name == "close"
    with pytest.raises(InputError, match="task.loss '.*:broken' raised ValueError: shapes"):
        own(X, X[:, :2], **settings, **{"task.loss": f"{tmp_path}/mine.py:broken"})


def test_outputs_that_are_not_as_many_as_the_classes_are_refused_before_training(own):
    with pytest.raises(
        InputError, match=r"output has shape \(N, 3\); own needs \(N, 5\) for task classification"
    ):
        own(X, np.arange(200) % 5)


def test_balanced_weights_make_every_class_count_alike():
    loss = TaskLoss.of(TaskOptions(class_weights="balanced"), np.array([0, 0, 0, 1]))
    assert loss.weights == (4 / 6, 2.0)
    with pytest.raises(InputError, match="a regression has no classes"):
        TaskLoss.of(TaskOptions(kind="regression", class_weights="balanced"))


@pytest.mark.parametrize("kind", ["classification", "multi-label", "regression", "sequence"])
def test_what_a_teacher_gives_is_the_best_answer_to_it(kind):
    shape = (6, 4, 3) if kind == "sequence" else (6, 3)
    teacher = torch.from_numpy(RNG.normal(size=shape))
    outputs = teacher.clone().requires_grad_()
    TaskLoss(kind).apart(outputs, teacher, 3.0).backward()
    assert outputs.grad.abs().max() < 1e-6
    with pytest.raises(InputError, match="nothing to distil"):
        TaskLoss(kind).apart(outputs, teacher[:, :2], 3.0)


def test_several_outputs_are_distilled_each_for_itself():
    task = TaskLoss(own=lambda outputs, targets: outputs[0].sum() * 0)
    options = TrainingOptions(distill_weight=0.5)
    ours, theirs = [torch.from_numpy(RNG.normal(size=(5, 3))) for _ in range(2)], [torch.zeros(5, 3)] * 2
    both = training_loss(ours, None, theirs, options, task)
    single = [training_loss((y,), None, (t,), options, task) for y, t in zip(ours, theirs, strict=True)]
    torch.testing.assert_close(both.double(), sum(single).double())


def test_a_batch_in_parts_has_the_gradient_of_the_whole():
    networks = []
    for parts in (1, 3):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
        fit(network, with_options(epochs=1, accumulate=parts))
        networks.append(network)
    for a, b in zip(*(n.parameters() for n in networks), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_gradients_longer_than_allowed_are_shortened():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    before = weights_of(network)
    once = {"epochs": 1, "batch": 160, "lr": 1.0, "schedule": "constant"}
    fit(network, with_options(**once, momentum=0, nesterov=False, weight_decay=0, clip=1e-3))
    moved = torch.cat([(v - before[k]).flatten() for k, v in weights_of(network).items()])
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_schedules_begin_peak_and_end_where_they_should():
    rates = {
        name: [learning_rate_at(TrainingOptions(lr=1.0, schedule=name), p) for p in (0.0, 0.3, 0.7, 1.0)]
        for name in ("cosine", "constant", "one-cycle", "step")
    }
    assert rates["constant"] == [1, 1, 1, 1]
    assert rates["step"] == pytest.approx([1, 1, 0.1, 0.01])
    assert rates["one-cycle"] == pytest.approx([0.04, 1.0, 0.3887, 0], abs=1e-3)
    assert rates["cosine"][0] == 1
    assert rates["cosine"][-1] == pytest.approx(0)


def test_adamw_and_early_stopping_go_on_after_a_stop_as_if_nothing_had_happened(tmp_path):
    options = with_options(optimizer="adamw", lr=1e-3, early_stopping=2)
    whole = tiny_network()
    fit(whole, options)
    stopped, path = tiny_network(), tmp_path / "t.state"
    with pytest.raises(Interrupted):
        fit(stopped, options, progress=SignalAt(7), state_path=path)
    fit(resumed := tiny_network(), options, state_path=path, resume=True)
    assert_same(weights_of(whole), weights_of(resumed))


def test_early_stopping_ends_with_the_best_epoch():
    network = tiny_network()
    history = fit(network, with_options(epochs=12, lr=1.0, early_stopping=2))
    figures = [epoch.validation_top1 for epoch in history]
    best = int(np.argmax(figures))
    assert len(history) == min(best + 3, 12)
    from tests.helpers.training import VALIDATION

    assert VALIDATION(network) == figures[best]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_changes_examples_and_follows_its_seed(name):
    x = torch.from_numpy(RNG.normal(size=(8, 2, 12, 10)).astype(np.float32))
    first, again, other = (augmented(x, [name], seed=s, padding=2) for s in ([1, 2], [1, 2], [1, 3]))
    assert first.shape == x.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, x)
    assert not any(torch.equal(first[0] - x[0], first[k] - x[k]) for k in range(1, 8) if name == "noise")


def test_crops_are_those_of_an_obvious_loop_and_need_images():
    x = torch.arange(2 * 5 * 6.0).view(1, 2, 5, 6)
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    crops = [padded[..., a : a + 5, b : b + 6] for a in range(5) for b in range(5)]
    for seed in range(6):
        found = augmented(x, ["crop"], seed=[seed], padding=2)
        assert any(torch.equal(found, crop) for crop in crops)
    with pytest.raises(InputError, match=r"data.augment crop is for images .*; inputs have shape \(4, 9\)"):
        augmented(torch.zeros(4, 9), ["crop"], seed=[0], padding=2)


def test_streamed_batches_are_those_in_memory(tmp_path):
    np.save(tmp_path / "x.npy", RNG.integers(0, 256, (700, 3, 24, 24), dtype=np.uint8))
    np.save(tmp_path / "y.npy", np.arange(700) % 4)
    held, streamed = (
        load_own(
            DataOptions(source=str(tmp_path / "x.npy"), labels=str(tmp_path / "y.npy"), memory=memory),
            TaskOptions(),
        )
        for memory in (100, 1)
    )
    assert streamed.streams
    augment = ("crop", "flip")
    feeds = [
        ExampleFeed(placed(data.train, data, CPU.torch_device), 64, CPU, 5, augment, 2)
        for data in (held, streamed)
    ]
    for (a, ya), (b, yb) in zip(*(feed.batches(3, 2) for feed in feeds), strict=True):
        assert torch.equal(a.tensors()[0], b.tensors()[0])
        assert torch.equal(ya, yb)
    tests = (in_order(placed(data.test, data, CPU.torch_device), 50) for data in (held, streamed))
    for (a, _), (b, _) in zip(*tests, strict=True):
        assert torch.equal(a.tensors()[0], b.tensors()[0])
