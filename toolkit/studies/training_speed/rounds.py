"""How fast networks are trained here beside a plain PyTorch loop, in one run on the same device.

Each measurement is a process of its own (`training_ways`), and only one of them is alive at a time: what one
way sets up in its process, such as the allocator, neither helps nor hinders the next. The ways take turns, and every
one is compared with the plain loop of the same round, so that a machine that slows down favours none.
"""

import subprocess
from collections.abc import Sequence
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from statistics import median
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from modelpress.benchmarks.environment import describe_environment
from modelpress.export.errors import InputError, ModelpressError
from modelpress.export.extras import how_to_install
from modelpress.export.isolation.fresh import fresh_process
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.recipe import Recipe

SCHEMA_VERSION = 1


class Way(StrEnum):
    """What is measured, in this order."""

    PLAIN = "plain PyTorch loop"
    FLOAT = "ours"
    FLOAT32 = "ours, float32"
    MIN_MAX = "ours, masks, 4-bit min-max grids"
    LEARNED = "ours, masks, 4-bit learned steps"


class TrainingJob(BaseModel):
    """One measurement, as it is handed to its process.

    Attributes:
        recipe: Data, network, device and the options of SGD (those of its `finetune`).
        images: Training images per epoch; None takes 5,120 on a CPU, all on other devices.
        batch: Images per step.
        workers: Processes that load images for the plain loop.
    """

    model_config = ConfigDict(frozen=True)

    way: Way
    recipe: Recipe
    images: int | None
    batch: int
    workers: int


class Measurement(BaseModel):
    """What the process answers.

    Attributes:
        images_per_second: Of the second of two epochs; the first warms up.
        images: Per epoch.
        device: For people, with the precision of the fast modes.
    """

    images_per_second: float
    images: int
    device: str


class Refusal(BaseModel):
    """What the process answers instead where the user can mend something."""

    refused: str


def measure_training(
    recipe: Recipe, *, batch: int, images: int | None, workers: int, rounds: int, progress: Progress
) -> dict[str, Any]:
    """Let all ways train in turn, in every round once.

    Args:
        recipe: See `TrainingJob`, as for `batch`, `images` and `workers`.
        rounds: How often the ways take turns.
        progress: Told of every measurement.

    Returns:
        The record that the JSON file holds.

    Raises:
        InputError: torch or torchvision is missing; data, device or recipe are not usable.
        ModelpressError: A process failed.
    """
    if find_spec("torch") is None:
        raise InputError(f"this command trains, and torch is not installed: {how_to_install('train')}")
    measured: dict[Way, list[Measurement]] = {way: [] for way in Way}
    progress.start("training", rounds * len(Way))
    try:
        for number in range(1, rounds + 1):
            for way, done in measured.items():
                job = TrainingJob(way=way, recipe=recipe, images=images, batch=batch, workers=workers)
                done.append(_in_a_process(job))
                progress.advance(way)
                progress.note(f"round {number}/{rounds}, {way}: {done[-1].images_per_second:,.0f} images/s")
    finally:
        progress.finish()

    first = measured[Way.PLAIN][0]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "training-speed",
        "environment": _environment(first.device),
        "data": recipe.data.dataset,
        "network": {"arch": recipe.model.arch, "shortcut": recipe.model.shortcut},
        "images": first.images,
        "batch": batch,
        "workers": workers,
        "ways": _rows({way: [m.images_per_second for m in done] for way, done in measured.items()}),
    }


def _in_a_process(job: TrainingJob) -> Measurement:
    done = subprocess.run(
        fresh_process("-m", "modelpress.toolkit.studies.training_speed.ways"),
        input=job.model_dump_json(),
        capture_output=True,
        text=True,
        check=False,
    )

    answer = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ModelpressError(f"measuring {job.way} failed: {reason}")
    try:
        return Measurement.model_validate_json(answer)
    except ValidationError:
        raise InputError(Refusal.model_validate_json(answer).refused) from None


def _environment(device: str) -> dict[str, Any]:
    """With the packages that the plain loop is made of, and the device that trained."""
    environment = describe_environment()
    for package in ("torchvision", "pillow"):
        try:
            environment["versions"][package] = version(package)
        except PackageNotFoundError:
            continue
    return {**environment, "training_device": device}


def _rows(speeds: dict[Way, list[float]]) -> list[dict[str, Any]]:
    return [
        {
            "way": str(way),
            "images_per_second": _figures(values),
            "ratio": _figures([own / plain for own, plain in zip(values, speeds[Way.PLAIN], strict=True)]),
        }
        for way, values in speeds.items()
    ]


def _figures(rounds: Sequence[float]) -> dict[str, Any]:
    return {"median": median(rounds), "min": min(rounds), "max": max(rounds), "rounds": list(rounds)}
