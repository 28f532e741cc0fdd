"""Training a network as it is between two passes, with masks and quantizers in place."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace

from torch import nn

from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import TrainingSection, Work
from modelpress.toolkit.data.batches import to_device
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.networks.early_exits import exits_of
from modelpress.toolkit.recipe import ExitOptions, TrainingOptions
from modelpress.toolkit.training.device import Device
from modelpress.toolkit.training.evaluate import Judged
from modelpress.toolkit.training.examples import placed
from modelpress.toolkit.training.exit_loss import ExitLoss
from modelpress.toolkit.training.feeds import ExampleFeed, ImageFeed
from modelpress.toolkit.training.loop import Score, train
from modelpress.toolkit.training.losses import TaskLoss
from modelpress.toolkit.training.rules import TrainingRule


def fit(
    state: NetworkState,
    network: CompressedNetwork,
    work: Work,
    section: TrainingSection,
    *,
    rules: Sequence[TrainingRule] = (),
) -> NetworkState:
    """Train by the recipe's options of that section; zero epochs change nothing.

    Args:
        state: Where training starts; its network is changed.
        network: That of `state` with its masks and quantizers; the rules may act on it.
        work: Images, device, teacher, and where an unfinished training is kept.
        section: Of the recipe; names the training.
        rules: What acts between the steps, in this order.

    Raises:
        Interrupted: Stopped on request.
        InputError: There is an unfinished training to resume, but of another network or with other options.
    """
    recipe, data = work.recipe, work.data
    options: TrainingOptions = getattr(recipe, section)
    if options.epochs == 0:
        return state

    epochs = train(
        network,
        training_feed(work, options),
        options,
        work.device,
        progress=work.progress,
        title=section,
        identity=_identity(state, work, options, has_rules=bool(rules)),
        loss=_loss_of(state, work),
        score=_score_on(data, work.device),
        rules=rules,
        teacher=work.teacher,
        undecayed=network.grid_parameters(),
        state_path=work.unfinished(section),
        resume=work.resume,
        after_epoch=work.after_epoch,
    )
    network.settle()
    history = {**state.history, section: [asdict(epoch) for epoch in epochs]}
    return replace(state, grids=network.kept_grids(), history=history)


def _loss_of(state: NetworkState, work: Work) -> TaskLoss:
    """The task's, at every exit of a network that has some."""
    task = TaskLoss.of(work.data.task, work.data.train.labels)
    if exits_of(state.network) is None:
        return task
    return ExitLoss.around(task, work.recipe.exits or ExitOptions())


def training_feed(
    work: Work, options: TrainingOptions, *, batch: int | None = None
) -> ImageFeed | ExampleFeed:
    """Augmented batches of the training examples.

    Args:
        work: Their data set, and where they go.
        options: Say how many examples a step takes, and how far crops go.
        batch: In place of the options' own.
    """
    data, device, seed = work.data, work.device, work.recipe.seed
    size = options.batch if batch is None else batch
    if data.augment is None:
        split = to_device(data.train, data, device.torch_device, padding=options.padding)
        return ImageFeed(split, size, device, seed, data.mirrored)
    examples = placed(data.train, data, device.torch_device)
    return ExampleFeed(examples, size, device, seed, data.augment, options.padding)


def _score_on(data: DataSet, device: Device) -> Score | None:
    return Judged.of(data.validation, data, device.torch_device) if len(data.validation) else None


def _identity(state: NetworkState, work: Work, options: TrainingOptions, *, has_rules: bool) -> str:
    """Names what is trained, so that only the very same training is resumed.

    The training's own options are compared by the loop; here is what acts on it besides.
    """
    teacher = work.teacher if options.distill_weight else None
    pruning = work.recipe.prune.model_dump_json() if has_rules else ""
    task = work.recipe.task.model_dump_json() + "".join(map(str, work.data.description.items()))
    exits = "" if work.recipe.exits is None else work.recipe.exits.model_dump_json()
    return _digest(state, teacher) + pruning + str(work.recipe.quantize.after) + task + exits


def _named(state: NetworkState) -> tuple[str, ...]:
    ours = state.model is not None and state.model.is_ours
    return (state.model.arch, state.model.shortcut) if state.model and ours else (state.architecture,)


def _digest(state: NetworkState, teacher: nn.Module | None) -> str:
    """SHA-256 of everything a training starts from."""
    digest = hashlib.sha256(repr((*_named(state), state.contract)).encode())
    digest.update(repr(sorted(state.quantizers.items())).encode())

    grids = [(name + key, value) for name, grid in sorted(state.grids.items()) for key, value in grid.items()]
    learned = {} if teacher is None else teacher.state_dict()
    for name, tensor in (
        *state.network.state_dict().items(),
        *sorted(state.masks.items()),
        *grids,
        *learned.items(),
    ):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
