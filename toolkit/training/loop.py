"""The training loop: SGD over device-resident data, resumable to the same weights.

Everything random of an epoch is drawn from (seed, epoch) before it starts, so a stopped run continues in the
middle of an epoch as if nothing had happened.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from export.errors import InputError, ModelpressError
from toolkit.data.batches import DeviceSplit, EpochPlan, n_batches
from toolkit.device import Device
from toolkit.recipe import TrainingOptions
from toolkit.training.checkpoint import State, load_state, save_state
from toolkit.training.evaluate import top1
from toolkit.training.interrupt import Interrupted, StopRequest, stop_on_signal
from toolkit.training.progress import Progress


@dataclass
class EpochRecord:
    """What one epoch did.

    Attributes:
        loss: Mean cross-entropy over the epoch, nats.
        learning_rate: At the epoch's last step.
        validation_top1: Fraction right on the held-out split after the epoch; None without such a split.
        images_per_second: Training only, without the validation.
        sparsity: Share of the weights at exactly zero, where a step rule counts them.
    """

    epoch: int
    loss: float
    learning_rate: float
    validation_top1: float | None
    seconds: float
    images_per_second: float
    sparsity: float | None = None


class StepRule(Protocol):
    """What follows every optimiser step; a function of the weights alone, so that a resumed run goes on as before."""

    def begin(self) -> None:
        """The weights are those that the next step starts from."""

    def after_step(self, learning_rate: float, progress: float) -> None:
        """A step with that rate is done, at that fraction of all steps."""

    def sparsity(self) -> float:
        """Share of its weights at exactly zero."""
        ...


@dataclass
class _Position:
    """Where a run stands: enough, with weights and momentum, to go on."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    history: list[EpochRecord] = field(default_factory=list)


def learning_rate_at(options: TrainingOptions, progress: float) -> float:
    """Learning rate after a fraction `progress` of all steps.

    Linear warm-up over ``options.warmup`` of the steps, then constant, or cosine decay to zero
    (Loshchilov and Hutter 2017, arXiv:1608.03983, eq. (5) without restarts).
    """
    if progress < options.warmup:
        return options.lr * progress / options.warmup
    if options.schedule == "constant":
        return options.lr
    return options.lr * 0.5 * (1 + cos(pi * (progress - options.warmup) / (1 - options.warmup)))


def train(
    network: nn.Module,
    train_split: DeviceSplit,
    validation_split: DeviceSplit,
    options: TrainingOptions,
    device: Device,
    *,
    seed: int,
    mirror: bool,
    progress: Progress,
    title: str,
    identity: str = "",
    rule: StepRule | None = None,
    state_path: Path | None = None,
    resume: bool = False,
) -> list[EpochRecord]:
    """Minimise cross-entropy for ``options.epochs`` epochs, in place.

    Args:
        network: On the device already.
        identity: Names what is trained; a state of another identity is not resumed.
        rule: Called after every optimiser step.
        state_path: Where the state is kept after every epoch and on a stop; None keeps none.
        resume: Continue from `state_path` if it is there.

    Raises:
        Interrupted: Stopped by Ctrl-C or SIGTERM; the state is in `state_path`.
        ModelpressError: The loss is not finite; the last complete epoch is in `state_path`.
        InputError: The state at `state_path` is that of another run.
    """
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov,
        weight_decay=options.weight_decay,
    )
    run = _Run(network, optimiser, train_split, options, device, seed, mirror, progress, rule)
    fingerprint = {
        "identity": identity,
        "options": options.model_dump(),
        "seed": seed,
        "images": len(train_split),
        "mirror": mirror,
    }
    position = _Position()
    if resume and state_path is not None and state_path.is_file():
        position = _restore(state_path, network, optimiser, fingerprint)
        progress.note(f"resumed after epoch {position.epoch}, step {position.step}")
    if rule is not None:
        rule.begin()
    with stop_on_signal() as stop:
        total = options.epochs * run.steps_per_epoch
        if position.epoch < options.epochs:
            progress.start(title, total, done=position.epoch * run.steps_per_epoch + position.step)
        while position.epoch < options.epochs:
            finished = run.epoch(position, stop)
            if finished:
                _close_epoch(position, run, validation_split)
            if state_path is not None:
                _store(state_path, network, optimiser, position, fingerprint)
            if not finished or (stop.pending and position.epoch < options.epochs):
                progress.finish()
                raise Interrupted(
                    f"stopped in epoch {position.epoch + 1} of {options.epochs}, step {position.step}"
                )
    progress.finish()
    return position.history


@dataclass
class _Run:
    network: nn.Module
    optimiser: torch.optim.SGD
    split: DeviceSplit
    options: TrainingOptions
    device: Device
    seed: int
    mirror: bool
    progress: Progress
    rule: StepRule | None

    @property
    def steps_per_epoch(self) -> int:
        return n_batches(self.split, self.options.batch)

    def epoch(self, position: _Position, stop: StopRequest) -> bool:
        """Train to the end of the epoch (true) or to a requested stop (false)."""
        self.network.train()
        plan = EpochPlan.draw(self.split, seed=self.seed, epoch=position.epoch, mirror=self.mirror)
        losses, began = [], time.perf_counter()
        while position.step < self.steps_per_epoch and not stop.pending:
            losses.append(self._step(plan, position))
            position.step += 1
            # a loss read back every step would stall a GPU, so it is shown now and then
            shown = f"loss {float(losses[-1]):.3f}" if position.step % 20 == 0 else ""
            self.progress.advance(shown)
        if losses:
            position.loss_sum += float(torch.stack(losses).double().sum())
        position.seconds += time.perf_counter() - began
        if not isfinite(position.loss_sum):
            self.progress.finish()
            raise ModelpressError(
                f"loss is not finite in epoch {position.epoch + 1}; the last complete epoch is kept: "
                f"lower the learning rate (now {self.options.lr}) and start again"
            )
        return position.step == self.steps_per_epoch

    def _step(self, plan: EpochPlan, position: _Position) -> torch.Tensor:
        done = position.epoch * self.steps_per_epoch + position.step
        progress = (done + 0.5) / (
            self.options.epochs * self.steps_per_epoch
        )  # the middle of the step: never rate 0
        rate = learning_rate_at(self.options, progress)
        self.optimiser.param_groups[0]["lr"] = rate
        images, labels = plan.batch(self.split, position.step, size=self.options.batch)
        if self.device.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self.device.autocast():
            logits = self.network(images)
        loss = F.cross_entropy(logits.float(), labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        if self.rule is not None:
            self.rule.after_step(rate, progress)
        return loss.detach()


def _close_epoch(position: _Position, run: _Run, validation: DeviceSplit) -> None:
    steps, images = run.steps_per_epoch, run.steps_per_epoch * min(run.options.batch, len(run.split))
    record = EpochRecord(
        epoch=position.epoch + 1,
        loss=position.loss_sum / steps,
        learning_rate=run.optimiser.param_groups[0]["lr"],
        validation_top1=top1(run.network, validation) if len(validation) else None,
        seconds=position.seconds,
        images_per_second=images / position.seconds,
        sparsity=None if run.rule is None else run.rule.sparsity(),
    )
    zeros = "" if record.sparsity is None else f", {record.sparsity:.2%} zeros"
    held_out = "" if record.validation_top1 is None else f", validation {record.validation_top1:.2%}"
    run.progress.note(
        f"epoch {record.epoch}/{run.options.epochs}: loss {record.loss:.4f}{zeros}{held_out}, "
        f"{record.images_per_second:,.0f} images/s"
    )
    position.history.append(record)
    position.epoch, position.step, position.loss_sum, position.seconds = position.epoch + 1, 0, 0.0, 0.0


def _store(
    path: Path,
    network: nn.Module,
    optimiser: torch.optim.SGD,
    position: _Position,
    fingerprint: dict[str, Any],
) -> None:
    tensors: State = {f"network.{name}": value for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        momentum = optimiser.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum
    save_state(path, tensors, {"position": asdict(position), "fingerprint": fingerprint})


def _restore(
    path: Path, network: nn.Module, optimiser: torch.optim.SGD, fingerprint: dict[str, Any]
) -> _Position:
    tensors, metadata = load_state(path)
    if metadata.get("fingerprint") != json.loads(json.dumps(fingerprint)):
        raise InputError(
            f"{path} was left by a training of another network or with other options; start again"
        )
    prefix = "network."
    network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    for name, parameter in network.named_parameters():
        if f"momentum.{name}" in tensors:
            momentum = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
            optimiser.state[parameter]["momentum_buffer"] = momentum
    stored = metadata["position"]
    stored["history"] = [EpochRecord(**record) for record in stored["history"]]
    return _Position(**stored)
