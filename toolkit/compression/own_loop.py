"""Compression of a network that somebody else's training loop trains.

    squeezed = compress(model, example_input, recipe)
    rules = squeezed.rules(steps_per_epoch=len(loader))
    for inputs, labels in loader:                          # any loss, any optimiser, any precision
        rules.before_step()
        loss_of(squeezed.network(inputs), labels).backward()
        optimiser.step()
        rules.after_step(optimiser.param_groups[0]["lr"])
    squeezed.export("model.press")

The graph is drawn at the start: a network that cannot be handed over is refused before it is trained.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from modelpress.export.errors import InputError, ModelError
from modelpress.export.onnx_flavours import emit
from modelpress.export.press.writing import write_artifact
from modelpress.export.runtime import open_session
from modelpress.toolkit.compression.choosing import layers_in_role
from modelpress.toolkit.compression.drawing import draw
from modelpress.toolkit.compression.freeze import freeze_state
from modelpress.toolkit.compression.given_data import teacher_of, train_on
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.passes.finetune import rules_of, with_room_for_masks
from modelpress.toolkit.compression.passes.prune import pruned_by_magnitude
from modelpress.toolkit.compression.passes.quantize import with_quantizers
from modelpress.toolkit.compression.pruning.proximal import ProximalStep
from modelpress.toolkit.compression.pruning.removal import prunable_layers, with_masks
from modelpress.toolkit.compression.report import CompressionReport, report_of
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.networks.layers import layers_with_weights
from modelpress.toolkit.networks.outputs import flat_outputs
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.recipe import Recipe, load_recipe
from modelpress.toolkit.training.loop import EpochRecord
from modelpress.toolkit.training.losses import Loss
from modelpress.toolkit.training.rules import Moment, TrainingRule

LARGEST_DIFFERENCE = 1e-4  # of outputs in ONNX Runtime to those of PyTorch, as a share of their range


def compress(
    model: nn.Module,
    example_input: Any,
    recipe: Recipe | Path | str | Mapping[str, Any] | None = None,
    *,
    data: Iterable[Any] | None = None,
    loss: Loss | None = None,
    validation: Iterable[Any] | None = None,
    unfinished: Path | str | None = None,
    progress: Progress | None = None,
) -> "Compression":
    """Prepare any PyTorch network for compression while you train it, or have it trained on your data.

    What the recipe says at once is done at once (one-shot pruning, grids); what it says of a training is done by
    `Compression.rules` (schedules, penalties, the start of quantization). With `data` there is no loop to write: the
    section ``finetune`` says how the network is trained.

    Args:
        model: Its parameters are trained in place; its forward pass, mode and hooks stay as they are.
        example_input: A tensor, or a tuple or dict of tensors: one call. Their first axis is the batch, two examples
            or more.
        recipe: A `Recipe`, a YAML file, the name of a shipped recipe, or its keys as a dict; sections ``prune``,
            ``quantize``, ``finetune.epochs`` and ``pack.effort`` count; with `data` all of ``finetune``, ``task``,
            ``seed`` and ``run`` as well.
        data: Gone through once an epoch, as a `torch.utils.data.DataLoader` or a list: pairs of inputs (as
            `example_input`) and targets. Training runs where `model` is.
        loss: Of outputs and targets, a scalar; None: that of the recipe's section ``task``, cross-entropy by default.
        validation: As `data`, in the same order each time: the metric of ``task`` is measured on it after every epoch,
            for ``finetune.early_stopping``.
        unfinished: File that keeps a training that was stopped; the same call goes on from it. It is removed at the
            end.
        progress: Told how the training goes; None: a line an epoch on stderr.

    Returns:
        The network to train, or trained, and what leads from it to a file.

    Raises:
        InputError: The recipe or the data are not usable, a pattern fits no layer, or there is no weight to compress.
        Interrupted: Stopped by Ctrl-C or SIGTERM during the training on `data`.
        ModelError: The network cannot be called with the example, or cannot be exported; with the reason.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
        >>> squeezed = compress(net, torch.zeros(2, 3, 4), {"prune": {"sparsity": 0.5}, "quantize": {"bits": 4}})
        >>> squeezed.network(torch.ones(2, 3, 4)).shape
        torch.Size([2, 4])
    """
    chosen = _recipe(recipe)
    teacher = None if data is None else teacher_of(model, chosen)
    inputs = Inputs.of(example_input)
    state = NetworkState(model, None, inputs=inputs)
    drawing = draw(model, inputs)
    if not any(layer.parameter in drawing.places for layer in layers_with_weights(model).values()):
        raise InputError("the network has no weight that can be pruned or quantized in its graph")

    if chosen.prune.sparsity and not chosen.prune.by_penalty and not chosen.prune.scheduled:
        state = pruned_by_magnitude(state, chosen.prune)
    elif chosen.prune.scheduled:
        state = with_room_for_masks(state, chosen.prune)
    state = with_quantizers(state, chosen.quantize)

    compression = Compression(state, chosen)
    if data is not None:
        compression.train(
            data,
            teacher=teacher,
            loss=loss,
            validation=validation,
            unfinished=None if unfinished is None else Path(unfinished),
            progress=progress,
        )
    return compression


class Compression:
    """A network on its way to a file.

    Attributes:
        network: Train this one: the user's network with masks and grids in its forward pass.
        recipe: What is done.
    """

    def __init__(self, state: NetworkState, recipe: Recipe) -> None:
        self.recipe = recipe
        self._state = state
        self.network: CompressedNetwork = state.compressed()

    def report(self) -> CompressionReport:
        """Every layer: what is done with it, or why nothing is. Known before any training."""
        roles = layers_in_role(self._state.network, self._state.inputs)
        return report_of(self._state, self.network, self.recipe, roles)

    def grid_parameters(self) -> list[nn.Parameter]:
        """Learned scales and centres: part of ``network.parameters()``; best trained without weight decay."""
        return self.network.grid_parameters()

    def rules(self, *, steps_per_epoch: int, done: int = 0) -> "LoopRules":
        """What acts between the steps of the optimiser.

        Args:
            steps_per_epoch: Of your loop; the recipe's schedules are in epochs.
            done: Steps done before, where a training is resumed.

        Raises:
            InputError: `steps_per_epoch` is not positive, or the recipe sets a price, which belongs to the loss.
        """
        if self.recipe.finetune.priced:
            raise InputError(
                "finetune.rate and target_bytes add to the loss, which a loop of your own computes: leave them out, or "
                "give compress the data"
            )
        if steps_per_epoch < 1 or done < 0:
            raise InputError(f"steps_per_epoch is {steps_per_epoch}, done {done}; expected at least 1 and 0")
        return LoopRules(self._rules(), steps_per_epoch, self.recipe.finetune.epochs, done)

    def train(
        self,
        data: Iterable[Any],
        *,
        teacher: nn.Module | None = None,
        loss: Loss | None = None,
        validation: Iterable[Any] | None = None,
        unfinished: Path | None = None,
        progress: Progress | None = None,
    ) -> list[EpochRecord]:
        """Train as the recipe's section ``finetune`` says; see `compress` for the arguments and errors.

        Args:
            teacher: To distil from, in evaluation mode, where ``finetune.distill_weight`` is not 0.

        Returns:
            What each epoch did.
        """
        return train_on(
            self.network,
            data,
            self.recipe,
            rules=self._rules(),
            teacher=teacher,
            loss=loss,
            validation=validation,
            progress=progress,
            unfinished=unfinished,
        )

    def _rules(self) -> list[TrainingRule]:
        rules = rules_of(self._state, self.network, self.recipe)
        if self.recipe.prune.by_penalty and self.recipe.prune.sparsity:
            rules.append(ProximalStep(prunable_layers(self._state, self.recipe.prune), self.recipe.prune))
        return rules

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes: parameters, masks, learned grids."""
        return self.network.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            RuntimeError: It is of another network, or of another recipe.
        """
        self.network.load_state_dict(dict(state))

    def export(self, path: Path | str, *, effort: str | None = None) -> "Exported":
        """Write the artifact, and hold it against the network.

        The codes in the file are those that training used, compared bit for bit; the file is read back; and what ONNX
        Runtime computes from it for the example input is compared with the network's own output.

        Args:
            path: Of the `.press` file; it appears when all comparisons have held.
            effort: ``fast``, ``default`` or ``max``; None: the recipe's.

        Raises:
            ModelError: A comparison has failed, or a weight is not finite.
            InputError: The file cannot be written.
        """
        state = self._settled()
        model = freeze_state(state)
        session = open_session(emit(model, flavour="float").SerializeToString())
        batch = draw(state.network, state.inputs).batch
        calls = [state.inputs] if batch is not None else [state.inputs, state.inputs.with_one_more()]
        difference = max(self._difference(session, inputs) for inputs in calls)
        if not difference <= LARGEST_DIFFERENCE:
            raise ModelError(
                f"outputs in ONNX Runtime differ from the network's by {difference:.1e} of their range; expected at "
                f"most {LARGEST_DIFFERENCE:g}: does its forward pass depend on more than its input?"
            )
        size = write_artifact(Path(path), model, effort=effort or self.recipe.pack.effort)  # type: ignore[arg-type]
        return Exported(Path(path), size, len(model.quantized()), difference, batch)

    def _settled(self) -> NetworkState:
        """The state with the masks and grids that training has led to; the user's parameters are not touched."""
        masks = {name: mask.clone() for name, mask in self.network.masks.items()}
        state = NetworkState(
            self._state.network,
            None,
            masks=masks,
            quantizers=self._state.quantizers,
            grids=self.network.kept_grids(),
            history=self._state.history,
            inputs=self._state.inputs,
        )
        if not self.recipe.prune.by_penalty:
            return state
        zeros = {
            name: weight.detach() != 0 for name, weight in prunable_layers(state, self.recipe.prune).items()
        }
        return with_masks(state, zeros, self.recipe.prune)

    def _difference(self, session: ort.InferenceSession, inputs: Inputs) -> float:
        """Largest difference of any output, over the range of that output."""
        modes = {module: module.training for module in self.network.modules()}
        device = next(self.network.parameters()).device
        try:
            self.network.eval()
            with torch.no_grad():
                expected = flat_outputs(inputs.on(device).call(self.network))
        finally:
            for module, mode in modes.items():
                module.training = mode

        feed = {
            name: tensor.cpu().numpy() for name, tensor in zip(inputs.names(), inputs.tensors(), strict=True)
        }
        found: Sequence[Any] = session.run(None, feed)
        return max(relative_difference(a.cpu().numpy(), b) for a, b in zip(expected, found, strict=True))


def relative_difference(expected: Any, found: Any) -> float:
    """Largest difference of two arrays, over the range of the first; infinite where their shapes differ.

    Example:
        >>> relative_difference(np.array([0.0, 4.0]), np.array([0.0, 3.0]))
        0.25
    """
    a, b = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    if a.shape != b.shape:
        return float("inf")
    span = float(np.ptp(a)) if a.size else 0.0
    return float(np.abs(a - b).max(initial=0.0)) / (span or max(float(np.abs(a).max(initial=0.0)), 1.0))


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: Where it is.
        size_bytes: Its size.
        quantized: How many tensors in it are codes.
        difference: Largest difference of an output in ONNX Runtime to the network's, over the outputs' range.
        batch: The only batch that it takes; None for any.
    """

    path: Path
    size_bytes: int
    quantized: int
    difference: float
    batch: int | None


class LoopRules:
    """Schedules, penalties and the start of quantization, called from any loop.

    Attributes:
        done: Number of steps done.
    """

    def __init__(
        self, rules: Sequence[TrainingRule], steps_per_epoch: int, epochs: int, done: int = 0
    ) -> None:
        self.done = done
        self._rules, self._steps_per_epoch = list(rules), steps_per_epoch
        self._steps = max(epochs, 1) * steps_per_epoch
        for rule in self._rules:
            rule.begin(self._moment())

    def before_step(self) -> bool:
        """Call before every forward pass of training; true if the network has become another, so averages restart."""
        moment = self._moment()
        changed = [rule.before_step(moment) for rule in self._rules]  # every one is asked
        return any(changed)

    def after_step(self, learning_rate: float) -> None:
        """Call after every step of the optimiser, with the rate that it had."""
        self.done += 1
        for rule in self._rules:
            rule.after_step(learning_rate, min(self.done / self._steps, 1.0))

    def sparsity(self) -> float | None:
        """Share of the prunable weights at exactly zero, where a rule counts them."""
        found = [rule.sparsity() for rule in self._rules]
        return next((share for share in found if share is not None), None)

    def _moment(self) -> Moment:
        epoch, step = divmod(self.done, self._steps_per_epoch)
        return Moment(epoch, step, self._steps_per_epoch)


def _recipe(recipe: Recipe | Path | str | Mapping[str, Any] | None) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return load_recipe(
            None, {f"{a}.{b}": v for a, section in recipe.items() for b, v in _keys(a, section)}
        )
    return load_recipe(recipe)


def _keys(name: str, section: Any) -> Sequence[tuple[str, Any]]:
    if name == "task" and isinstance(section, str):
        return [("kind", section)]
    if not isinstance(section, Mapping):
        raise InputError(
            f"recipe: {name} is {section!r}; expected a section, as in {{'quantize': {{'bits': 4}}}}"
        )
    return list(section.items())
