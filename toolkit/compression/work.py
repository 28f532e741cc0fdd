"""What the passes of one chain share: what to do, on which images, where, and who is told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import nn

from modelpress.toolkit.compression.network_file import save_network
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.teacher import teacher_for
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.output_folder import state_path
from modelpress.toolkit.progress import Progress, Silent
from modelpress.toolkit.recipe import Recipe
from modelpress.toolkit.training.device import Device
from modelpress.toolkit.training.loop import EpochRecord

TrainingSection = Literal["train", "exits", "sparsify", "finetune"]
Point = Literal["pruned", "quantized", "finetuned"]
Watch = Callable[[Point, NetworkState], None]
AfterEpoch = Callable[[EpochRecord], None]

NETWORK_FILES: dict[TrainingSection, str] = {
    "train": "dense.safetensors",
    "exits": "exits.safetensors",
    "sparsify": "pruned.safetensors",
    "finetune": "checkpoint.safetensors",
}


def network_files(folder: Path) -> dict[TrainingSection, Path]:
    """Where a run keeps the network that each of its trainings leads to."""
    return {section: folder / name for section, name in NETWORK_FILES.items()}


def unwatched(point: Point, state: NetworkState) -> None:
    """Look at nothing."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Everything a pass needs besides the network.

    Attributes:
        recipe: What to do.
        data: Passes look at the training and the validation split, never at the test images.
        device: Networks are there already.
        progress: Told of everything that takes time.
        teacher: To distil from, where the recipe asks for it; see `with_teacher`.
        outputs: Network file that a section's training leads to; an unfinished training is kept beside it. Sections
            without one leave nothing behind.
        resume: Go on with trainings that are unfinished there.
        watch: Called with ``pruned``, ``quantized`` and ``finetuned`` and the network at that point, unless a schedule
            makes two of them one.
        after_epoch: Told of every epoch of every training, once its state is kept.
    """

    recipe: Recipe
    data: DataSet
    device: Device
    progress: Progress = field(default_factory=Silent)
    teacher: nn.Module | None = None
    outputs: Mapping[TrainingSection, Path] = field(default_factory=dict)
    resume: bool = False
    watch: Watch = unwatched
    after_epoch: AfterEpoch | None = None

    def with_teacher(self, dense: NetworkState) -> "Work":
        """The same work with the teacher that the recipe asks for, by default a copy of `dense` as it is now.

        Raises:
            InputError: The teacher is not usable.
        """
        return replace(self, teacher=teacher_for(self.recipe, dense, self.device))

    def unfinished(self, section: TrainingSection) -> Path | None:
        """Where a section's training is kept while it is unfinished."""
        output = self.outputs.get(section)
        return None if output is None else state_path(output)

    def keep(self, section: TrainingSection, state: NetworkState) -> None:
        """Write the network that a section's training has led to; of several processes, the first one does."""
        output = self.outputs.get(section)
        if output is not None and self.device.team.first:
            save_network(output, state)
