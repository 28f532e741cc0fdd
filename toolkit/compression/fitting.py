"""Training a network as it is between two passes, with masks and quantizers in place."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

from torch import nn

from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import TrainingSection, Work
from modelpress.toolkit.data.batches import DeviceSplit, to_device
from modelpress.toolkit.recipe import TrainingOptions
from modelpress.toolkit.training.evaluate import top1
from modelpress.toolkit.training.feeds import ImageFeed
from modelpress.toolkit.training.loop import Score, train
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
    recipe, images, device = work.recipe, work.images, work.device.torch_device
    options: TrainingOptions = getattr(recipe, section)
    if options.epochs == 0:
        return state

    epochs = train(
        network,
        ImageFeed(
            to_device(images.train, images, device, padding=options.padding),
            options.batch,
            work.device,
            recipe.seed,
            images.mirrored,
        ),
        options,
        work.device,
        progress=work.progress,
        title=section,
        identity=_identity(state, work, options, has_rules=bool(rules)),
        score=_score_on(to_device(images.validation, images, device)),
        rules=rules,
        teacher=work.teacher,
        undecayed=network.grid_parameters(),
        state_path=work.unfinished(section),
        resume=work.resume,
    )
    network.settle()
    history = {**state.history, section: [asdict(epoch) for epoch in epochs]}
    return replace(state, grids=network.kept_grids(), history=history)


def _score_on(validation: DeviceSplit) -> Score | None:
    return partial(top1, split=validation) if len(validation) else None


def _identity(state: NetworkState, work: Work, options: TrainingOptions, *, has_rules: bool) -> str:
    """Names what is trained, so that only the very same training is resumed.

    The training's own options are compared by the loop; here is what acts on it besides.
    """
    teacher = work.teacher if options.distill_weight else None
    pruning = work.recipe.prune.model_dump_json() if has_rules else ""
    return _digest(state, teacher) + pruning + str(work.recipe.quantize.after)


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
