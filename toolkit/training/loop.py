"""The training loop: any optimiser over any feed of batches, resumable to the same weights.

Everything random of an epoch follows from (seed, epoch), so a stopped run continues in the middle of an epoch as if
nothing had happened.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from modelpress.benchmarks.measures.metrics import TOP1, Metric
from modelpress.export.errors import InputError, ModelError, ModelpressError
from modelpress.toolkit.networks.foreign.nested import State
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.recipe import TrainingOptions
from modelpress.toolkit.training.averaging import WeightAverage
from modelpress.toolkit.training.captured import CapturedGradients
from modelpress.toolkit.training.checkpoint import load_state, save_state
from modelpress.toolkit.training.device import Device
from modelpress.toolkit.training.examples import Batch
from modelpress.toolkit.training.feeds import Feed
from modelpress.toolkit.training.interrupt import Interrupted, StopRequest, stop_on_signal
from modelpress.toolkit.training.losses import TaskLoss, training_loss
from modelpress.toolkit.training.memory import keep_freed_memory
from modelpress.toolkit.training.optimisers import (
    learning_rate_at,
    make_optimiser,
    optimiser_state,
    restore_optimiser,
)
from modelpress.toolkit.training.patience import Patience
from modelpress.toolkit.training.rules import Moment, TrainingRule


class Score(Protocol):
    """The figure of merit on held-out examples."""

    @property
    def metric(self) -> Metric:
        """Which figure it is."""

    def __call__(self, network: nn.Module) -> float:
        """Of a network as it is."""


# torch's words where a view does not fit the order in memory
_VIEW = "view size is not compatible with input tensor's size and stride"
_REMEDY_OF_VIEW = (
    "the network's code takes a .view() of images, whose channels are last in memory while it is trained: use "
    ".reshape() or .flatten(1) there, or set run.channels_last to false"
)
_STEPS_BETWEEN_QUESTIONS = 8  # of processes that train together, whether one was asked to stop


@dataclass
class EpochRecord:
    """What one epoch did.

    Attributes:
        loss: Mean over the epoch; cross-entropy in nats.
        learning_rate: At the epoch's last step.
        validation_top1: Fraction right on the held-out split after the epoch; None without such a split, and of tasks
            that are judged otherwise.
        images_per_second: Training only, without the validation.
        sparsity: Share of the weights at exactly zero, where a rule counts them.
        validation: Figure of merit on the held-out split, where that is not top-1.
        facts: What the rules record.
    """

    epoch: int
    loss: float
    learning_rate: float
    validation_top1: float | None
    seconds: float
    images_per_second: float
    sparsity: float | None = None
    validation: float | None = None
    facts: dict[str, float] = field(default_factory=dict)


@dataclass
class _Position:
    """Where a run stands: enough, with weights and momentum, to go on."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    examples: int = 0  # of this process
    history: list[EpochRecord] = field(default_factory=list)


def train(
    network: nn.Module,
    feed: Feed,
    options: TrainingOptions,
    device: Device,
    *,
    progress: Progress,
    title: str,
    identity: str = "",
    loss: TaskLoss | None = None,
    score: Score | None = None,
    rules: Sequence[TrainingRule] = (),
    teacher: nn.Module | None = None,
    undecayed: Sequence[nn.Parameter] = (),
    state_path: Path | None = None,
    resume: bool = False,
    after_epoch: Callable[[EpochRecord], None] | None = None,
) -> list[EpochRecord]:
    """Minimise the loss of `training_loss` for ``options.epochs`` epochs, in place.

    Args:
        network: On the device already.
        feed: Batches; `options.batch` and the augmentation are its own affair.
        identity: Names what is trained; a state of another identity is not resumed.
        loss: Of the task, in place of cross-entropy.
        score: Figure of merit on held-out examples, asked after every epoch.
        rules: Act between the steps, in this order.
        teacher: In evaluation mode on the device; needed if ``options.distill_weight`` is not 0.
        undecayed: Parameters of the network without weight decay.
        state_path: Where the state is kept after every epoch and on a stop; None keeps none.
        resume: Continue from `state_path` if it is there.
        after_epoch: Told of every epoch once its state is kept; what it raises ends the training there.

    Raises:
        Interrupted: Stopped by Ctrl-C or SIGTERM; the state is in `state_path`.
        ModelpressError: The loss is not finite; the last complete epoch is in `state_path`.
        InputError: The state at `state_path` is that of another run, or early stopping has nothing to watch.
    """
    if options.distill_weight and teacher is None:
        raise InputError("distill_weight is not 0, but there is no teacher to distil from")
    if options.early_stopping and score is None:
        raise InputError(
            "early_stopping watches the validation examples, and there are none (data.validation)"
        )
    if device.torch_device.type == "cpu":
        keep_freed_memory()

    optimiser = make_optimiser(network, options, undecayed)
    average = WeightAverage(network, options.average) if options.average else None
    patience = Patience(network, options.early_stopping) if options.early_stopping else None
    run = _Training(
        network, optimiser, feed, options, device, progress, rules, teacher, average, loss, patience
    )

    fingerprint = {"identity": identity, "options": options.model_dump(), **feed.identity()}
    position = _Position()
    if resume and state_path is not None and state_path.is_file():
        position = _restore(state_path, run, fingerprint)
        progress.note(f"resumed after epoch {position.epoch}, step {position.step}")
    for rule in rules:
        rule.begin(run.moment(position))

    with stop_on_signal() as stop, device.team.joint_batch_norm(network):
        total = options.epochs * run.steps_per_epoch
        if position.epoch < options.epochs:
            progress.start(title, total, done=position.epoch * run.steps_per_epoch + position.step)

        while position.epoch < options.epochs and not run.is_over():
            finished = run.epoch(position, stop)
            if finished:
                _close_epoch(position, run, score)
            if state_path is not None and device.team.first:
                _store(state_path, run, position, fingerprint)
            _tell(after_epoch, position, finished=finished)
            goes_on = position.epoch < options.epochs and not run.is_over()
            if not finished or (run.must_stop(stop, position) and goes_on):
                progress.finish()
                raise Interrupted(
                    f"stopped in epoch {position.epoch + 1} of {options.epochs}, step {position.step}"
                )
    progress.finish()

    if average is not None and options.epochs:  # the average is what the training ends with
        average.swap()
    if patience is not None:
        best = patience.restore()
        progress.note(
            f"{title} ends with the weights of epoch {best + 1}, the best on the validation examples"
        )
    return position.history


@dataclass
class _Training:
    """What stays the same from the first step to the last."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    feed: Feed
    options: TrainingOptions
    device: Device
    progress: Progress
    rules: Sequence[TrainingRule]
    teacher: nn.Module | None
    average: WeightAverage | None
    loss: TaskLoss | None
    patience: Patience | None = None

    def __post_init__(self) -> None:
        self.forward = torch.compile(self.network) if self.device.compile else self.network
        self._captured = (
            CapturedGradients(self.network, self._gradients, self.progress) if self.device.captures else None
        )

    def must_stop(self, stop: StopRequest, position: _Position) -> bool:
        """Whether this process was asked to stop; processes that train together ask each other now and then."""
        team = self.device.team
        if team.size == 1:
            return stop.pending
        return position.step % _STEPS_BETWEEN_QUESTIONS == 0 and team.any(
            stop.pending, self.device.torch_device
        )

    def is_over(self) -> bool:
        """Whether no better epoch is waited for any more."""
        return self.patience is not None and self.patience.is_over()

    @property
    def steps_per_epoch(self) -> int:
        return len(self.feed)

    def moment(self, position: _Position) -> Moment:
        return Moment(position.epoch, position.step, self.steps_per_epoch)

    def sparsity(self) -> float | None:
        """That of the first rule that counts."""
        return next((s for rule in self.rules if (s := rule.sparsity()) is not None), None)

    def epoch(self, position: _Position, stop: StopRequest) -> bool:
        """Train to the end of the epoch (true) or to a requested stop (false)."""
        self.network.train()
        losses, began = [], time.perf_counter()
        batches = self.feed.batches(position.epoch, position.step)
        while position.step < self.steps_per_epoch and not self.must_stop(stop, position):
            batch = next(batches, None)
            if batch is None:
                raise InputError(
                    f"data ended after {position.step} batches; its length says {self.steps_per_epoch}"
                )
            losses.append(self._step(batch, position))
            position.step += 1
            position.examples += batch[0].n_examples
            # a loss read back every step would stall a GPU, so it is shown now and then
            shown = f"loss {float(losses[-1]):.3f}" if position.step % 20 == 0 else ""
            self.progress.advance(shown)

        if losses:
            total = float(torch.stack(losses).double().sum())
            position.loss_sum += self.device.team.mean(total, self.device.torch_device)
        position.seconds += time.perf_counter() - began

        if not isfinite(position.loss_sum):
            self.progress.finish()
            raise ModelpressError(
                f"loss is not finite in epoch {position.epoch + 1}; the last complete epoch is kept: "
                f"lower the learning rate (now {self.options.lr}) and start again"
            )
        return position.step == self.steps_per_epoch

    def _step(self, batch: Batch, position: _Position) -> torch.Tensor:
        done = position.epoch * self.steps_per_epoch + position.step
        total = self.options.epochs * self.steps_per_epoch
        progress = (done + 0.5) / total  # the middle of the step: never rate 0
        rate = learning_rate_at(self.options, progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

        restarts = [rule.before_step(self.moment(position)) for rule in self.rules]
        if any(restarts):  # the network has become another
            if self.average is not None:
                self.average.restart()
            if self.patience is not None:
                self.patience.restart()
            if self._captured is not None:
                self._captured.forget()

        loss = (self._captured or self._gradients)(*batch)
        self.device.team.average_gradients(self.network.parameters())
        if self.options.clip:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.options.clip)
        self.optimiser.step()

        for rule in self.rules:
            rule.after_step(rate, progress)
        if self.average is not None:
            self.average.update(done)
        return loss

    def _gradients(self, inputs: Inputs, targets: Any) -> torch.Tensor:
        """Those of the mean loss of a batch, added up over its parts; returns that loss."""
        self.optimiser.zero_grad(set_to_none=True)
        n_examples = inputs.n_examples
        n_parts = min(self.options.accumulate, n_examples)
        total: torch.Tensor | None = None
        for part, wanted in _parts((inputs, targets), n_parts):
            with self.device.autocast():
                outputs = self._outputs(part)
            loss = training_loss(outputs, wanted, self._teacher_outputs(part), self.options, self.loss)
            if n_parts > 1:
                loss = loss * (part.n_examples / n_examples)
            loss.backward()
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None  # there is a part

        for rule in self.rules:
            penalty = rule.penalty()
            if penalty is not None:
                penalty.backward()
        return total

    def _outputs(self, inputs: Inputs) -> Any:
        """Of the compiled network where the device has one; of the network itself if it does not compile."""
        try:
            return inputs.call(self.forward)
        except Exception as error:  # compilers raise errors of many kinds
            if self.forward is self.network:
                if isinstance(error, RuntimeError) and _VIEW in str(error):
                    raise ModelError(_REMEDY_OF_VIEW) from error
                raise
            self.progress.note(f"trains without compiling: {type(error).__name__}")
            self.forward = self.network
            return inputs.call(self.network)

    @torch.no_grad()
    def _teacher_outputs(self, inputs: Inputs) -> Any:
        if self.teacher is None or not self.options.distill_weight:
            return None
        with self.device.autocast():
            return inputs.call(self.teacher)


def _parts(batch: Batch, n: int) -> Iterator[Batch]:
    """A batch in `n` parts of nearly equal size."""
    inputs, targets = batch
    if n == 1:
        yield batch
        return
    size = inputs.n_examples
    for k in range(n):
        part = slice(k * size // n, (k + 1) * size // n)
        yield inputs.part(part), _cut(targets, part)


def _cut(targets: Any, part: slice) -> Any:
    if isinstance(targets, Mapping):
        return {name: _cut(value, part) for name, value in targets.items()}
    if isinstance(targets, tuple | list):
        return tuple(_cut(value, part) for value in targets)
    return targets[part]


def _close_epoch(position: _Position, run: _Training, score: Score | None) -> None:
    if run.average is not None:
        run.average.swap()  # what the training would end with
    figure = None if score is None else score(run.network)
    if run.patience is not None and score is not None and figure is not None:
        run.patience.look(position.epoch, figure, score.metric)
    if run.average is not None:
        run.average.swap()
    is_top1 = score is not None and score.metric is TOP1

    record = EpochRecord(
        epoch=position.epoch + 1,
        loss=position.loss_sum / run.steps_per_epoch,
        learning_rate=run.optimiser.param_groups[0]["lr"],
        validation_top1=figure if is_top1 else None,
        seconds=position.seconds,
        images_per_second=position.examples * run.device.team.size / position.seconds,
        sparsity=run.sparsity(),
        validation=None if is_top1 else figure,
        facts={key: value for rule in run.rules for key, value in rule.close_epoch().items()},
    )

    zeros = "" if record.sparsity is None else f", {record.sparsity:.2%} zeros"
    told = "".join(f", {key.replace('_', ' ')} {value:,.6g}" for key, value in record.facts.items())
    held_out = ""
    if score is not None and figure is not None:
        named = "" if is_top1 else f"{score.metric.name} "
        held_out = f", validation {named}{score.metric.shown(figure)}"
    run.progress.note(
        f"epoch {record.epoch}/{run.options.epochs}: loss {record.loss:.4f}{zeros}{told}{held_out}, "
        f"{record.images_per_second:,.0f} images/s"
    )

    position.history.append(record)
    position.epoch, position.step = position.epoch + 1, 0
    position.loss_sum, position.seconds, position.examples = 0.0, 0.0, 0


def _tell(after_epoch: Callable[[EpochRecord], None] | None, position: _Position, *, finished: bool) -> None:
    if finished and after_epoch is not None:
        after_epoch(position.history[-1])


def _store(path: Path, run: _Training, position: _Position, fingerprint: dict[str, Any]) -> None:
    tensors: State = {f"network.{name}": value for name, value in run.network.state_dict().items()}
    tensors |= optimiser_state(run.network, run.optimiser)
    for number, rule in enumerate(run.rules):
        tensors |= {f"rule.{number}.{name}": value for name, value in rule.state().items()}
    if run.average is not None:
        tensors |= {f"average.{name}": value for name, value in run.average.values.items()}
    facts: dict[str, Any] = {"position": asdict(position), "fingerprint": fingerprint}
    if run.patience is not None:
        tensors |= {f"best.{name}": value for name, value in run.patience.values.items()}
        facts["patience"] = run.patience.facts()
    save_state(path, tensors, facts)


def _restore(path: Path, run: _Training, fingerprint: dict[str, Any]) -> _Position:
    tensors, metadata = load_state(path)
    if metadata.get("fingerprint") != json.loads(json.dumps(fingerprint)):
        raise InputError(
            f"{path} was left by a training of another network or with other options; start again"
        )

    run.network.load_state_dict(_part(tensors, "network."))
    restore_optimiser(run.network, run.optimiser, tensors)
    for number, rule in enumerate(run.rules):
        kept = _part(tensors, f"rule.{number}.")
        for name, value in rule.state().items():
            value.copy_(kept[name])
    if run.average is not None:
        run.average.load(_part(tensors, "average."))
    if run.patience is not None:
        run.patience.load(_part(tensors, "best."), metadata["patience"])

    stored = metadata["position"]
    stored["history"] = [EpochRecord(**record) for record in stored["history"]]
    return _Position(**stored)


def _part(tensors: State, prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
