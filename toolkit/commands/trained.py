"""What the commands that train have in common."""

from pathlib import Path
from typing import Literal

from modelpress.toolkit.commands.answers import answer_line
from modelpress.toolkit.compression.network_file import NetworkState
from modelpress.toolkit.compression.stages import load_images, validation_top1
from modelpress.toolkit.data.image_set import ImageSet
from modelpress.toolkit.output_folder import state_path
from modelpress.toolkit.recipe import Recipe
from modelpress.toolkit.training.device import Device, device_of


def images_and_device(recipe: Recipe) -> tuple[ImageSet, Device]:
    """What a training works on, and where."""
    place = device_of(recipe.run)
    return load_images(recipe.data), place


def answer_training(
    trained: NetworkState,
    images: ImageSet,
    place: Device,
    stage: Literal["train", "finetune"],
    output: Path,
    *,
    as_json: bool,
) -> None:
    """Drop what an unfinished training needs, measure the network on the held-out split, and tell."""
    state_path(output).unlink(missing_ok=True)
    accuracy = validation_top1(trained.compressed(), images, place)

    found = "no validation split" if accuracy is None else f"validation {accuracy:.2%}"
    facts = {"output": str(output), "validation_top1": accuracy, "epochs": trained.history.get(stage, [])}
    answer_line(f"{output}: {found}", facts, as_json=as_json)
