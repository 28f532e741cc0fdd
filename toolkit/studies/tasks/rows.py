"""The tasks of the study: data, network, and how it is trained and compressed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelpress.export.errors import CommandLineError
from modelpress.toolkit.recipe import Recipe, load_recipe
from modelpress.toolkit.studies.tasks.examples import (
    write_digit_folder,
    write_sounds,
    write_table,
    write_tokens,
)

_NETWORKS = "modelpress.toolkit.studies.tasks.networks"
_COMMON: Mapping[str, Any] = {
    "quantize.bits": 4,
    "quantize.symmetric": True,
    "quantize.range": "mse",
    "quantize.learned": True,
    "quantize.layers": {"role:first": 8, "role:last": 8, "role:depthwise": 8},
    "finetune.distill_weight": 0.5,
    "pack.effort": "max",
    "onnx": ["float", "int8"],
    "run.device": "cpu",
    "run.bf16": False,
    "bench.batch": [1],
    "bench.threads": [1],
}


@dataclass(frozen=True)
class TaskRow:
    """One task.

    Attributes:
        name: In tables, and of its folder.
        data: What the examples are, in words.
        write: Makes them in a folder, at most so many.
        network: A function of `networks`.
        epochs: Of the dense training, and of the finetuning.
        settings: What is its own in the recipe.
    """

    name: str
    data: str
    write: Callable[[Path, int | None], Path]
    network: str
    epochs: tuple[int, int]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self, source: Path, settings: Mapping[str, Any] | None = None) -> Recipe:
        """Whole; with other settings if asked for."""
        trained, finetuned = self.epochs
        return load_recipe(
            None,
            {
                **_COMMON,
                "data.source": str(source),
                "model.factory": f"{_NETWORKS}:{self.network}",
                "train.epochs": trained,
                "finetune.epochs": finetuned,
                **self.settings,
                **(settings or {}),
            },
        )


ROWS = (
    TaskRow(
        "images",
        "digits of scikit-learn as PNG files",
        write_digit_folder,
        "small_cnn",
        (20, 20),
        {"prune.sparsity": 0.8, "train.lr": 0.05, "finetune.lr": 0.02},
    ),
    TaskRow(
        "table",
        "breast-cancer table of scikit-learn",
        write_table,
        "mlp",
        (60, 60),
        {
            "data.normalise": "standard",
            "prune.sparsity": 0.8,
            "quantize.layers": {},
            "train.batch": 32,
            "train.lr": 0.02,
            "train.weight_decay": 1e-3,
            "finetune.batch": 32,
            "finetune.lr": 0.01,
            "finetune.weight_decay": 1e-3,
        },
    ),
    TaskRow(
        "sounds",
        "spectrograms of ten kinds of synthesised sounds",
        write_sounds,
        "ds_cnn",
        (20, 20),
        {
            "data.normalise": "standard",
            "data.augment": ["noise"],
            "prune.sparsity": 0.7,
            "train.lr": 0.05,
            "finetune.lr": 0.02,
        },
    ),
    TaskRow(
        "tokens",
        "digits of scikit-learn as 64 tokens",
        write_tokens,
        "token_transformer",
        (60, 40),
        {
            "prune.sparsity": 0.7,
            "train.optimizer": "adamw",
            "train.lr": 3e-3,
            "train.schedule": "one-cycle",
            "train.weight_decay": 0.05,
            "train.clip": 1.0,
            "finetune.optimizer": "adamw",
            "finetune.lr": 2e-3,
            "finetune.clip": 1.0,
            "finetune.weight_decay": 0.05,
        },
    ),
)


def choose_rows(wanted: list[str]) -> list[TaskRow]:
    """Those of these names, in the study's order.

    Raises:
        CommandLineError: There is none of that name.
    """
    known = [row.name for row in ROWS]
    unknown = [name for name in wanted if name not in (*known, "all")]
    if unknown:
        raise CommandLineError(f"--rows {unknown[0]}: there are {', '.join(known)}, or all")
    return [row for row in ROWS if row.name in wanted or "all" in wanted]
