"""Training of a user's own network on data of the user's own, as the recipe says."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modelpress.export.errors import InputError
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.data.tasks import metric_of
from modelpress.toolkit.progress import Notes, Progress
from modelpress.toolkit.recipe import Recipe
from modelpress.toolkit.training.device import Device, choose_device
from modelpress.toolkit.training.evaluate import Judged
from modelpress.toolkit.training.feeds import LoaderFeed
from modelpress.toolkit.training.loop import EpochRecord, train
from modelpress.toolkit.training.losses import Loss, TaskLoss
from modelpress.toolkit.training.rules import TrainingRule


def teacher_of(model: nn.Module, recipe: Recipe) -> nn.Module | None:
    """A copy of the network before anything is removed, where the recipe distils; else None.

    Raises:
        InputError: It cannot be copied.
    """
    if not recipe.finetune.distill_weight:
        return None
    if recipe.model.teacher is not None:
        raise InputError("model.teacher is for networks of recipes; here the network given is the teacher")
    try:
        return copy.deepcopy(model).requires_grad_(False).eval()
    except Exception as error:  # whatever the user's modules raise
        raise InputError(
            f"the network cannot be copied for distillation ({error}): set finetune.distill_weight to 0"
        ) from error


def train_on(
    network: CompressedNetwork,
    data: Iterable[Any],
    recipe: Recipe,
    *,
    rules: Sequence[TrainingRule],
    teacher: nn.Module | None,
    loss: Loss | None = None,
    validation: Iterable[Any] | None = None,
    progress: Progress | None = None,
    unfinished: Path | None = None,
) -> list[EpochRecord]:
    """Train by the section `finetune`, where the network is.

    Args:
        network: Changed in place.
        data: See `LoaderFeed`.
        recipe: Of it `finetune`, `task`, `seed` and `run` count.
        rules: What acts between the steps.
        teacher: To distil from.
        loss: Of outputs and targets; None: that of the recipe's task.
        validation: As `data`; what the recipe's metric is measured on after every epoch.
        progress: Told of every step; None: a line an epoch on stderr.
        unfinished: Where an unfinished training is kept, and gone on with if there is one.

    Raises:
        InputError: The data are not usable, or no epochs are asked for.
        Interrupted: Stopped by Ctrl-C or SIGTERM; what is done is in `unfinished`.
    """
    options = recipe.finetune
    if not options.epochs:
        raise InputError("there are data to train on, but finetune.epochs is 0: say how many epochs")
    device = _device_of(network, recipe)

    history = train(
        network,
        LoaderFeed(data, device.torch_device, recipe.seed),
        options,
        device,
        progress=progress or Notes(),
        title="finetune",
        identity=recipe.model_dump_json(include={"prune", "quantize"}),
        loss=_task_loss(recipe, loss),
        score=None if validation is None else _judged(validation, recipe, device),
        rules=rules,
        teacher=teacher,
        undecayed=network.grid_parameters(),
        state_path=unfinished,
        resume=unfinished is not None,
    )
    network.settle()
    network.eval()
    if unfinished is not None:
        unfinished.unlink(missing_ok=True)
    return history


def _task_loss(recipe: Recipe, own: Loss | None) -> TaskLoss:
    """That of the recipe's task, or the one given.

    Raises:
        InputError: Classes are to be counted, which only data of a recipe are.
    """
    if recipe.task.class_weights == "balanced":
        raise InputError(
            "task.class_weights is balanced, but classes of a loader are not counted: give numbers"
        )
    task = TaskLoss.of(recipe.task)
    return task if own is None else replace(task, own=own)


def _judged(validation: Iterable[Any], recipe: Recipe, device: Device) -> Judged:
    """Examples of a loader with their targets, by the recipe's metric."""
    feed = LoaderFeed(validation, device.torch_device, recipe.seed)
    targets: list[Any] = [targets for _, targets in feed.batches(0, 0)]
    joined: Any
    if isinstance(targets[0], Mapping):
        joined = {name: torch.cat([each[name] for each in targets]).cpu().numpy() for name in targets[0]}
    else:
        joined = torch.cat(targets).cpu().numpy()
    return Judged(feed, joined, metric_of(recipe.task), TaskLoss.of(recipe.task))


def _device_of(network: nn.Module, recipe: Recipe) -> Device:
    """That of the network; only images are known to gain by another memory layout."""
    own = next(network.parameters()).device
    return choose_device(str(own), bf16=recipe.run.bf16, channels_last=False, compiled=recipe.run.compile)
