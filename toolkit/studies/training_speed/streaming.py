"""How fast training is on data that do not fit into the memory they may take, beside the same data that do.

Each measurement is a process of its own, which trains the same small network for two epochs, of which the second
counts; the ways take turns. A network this small shows what reading costs: a larger one hides it.
"""

import resource
import subprocess
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from modelpress.benchmarks.environment import describe_environment
from modelpress.export.errors import ModelpressError
from modelpress.export.isolation.fresh import fresh_process
from modelpress.toolkit.data.png_file import encode_png
from modelpress.toolkit.progress import Progress, Silent
from modelpress.toolkit.recipe import load_recipe

SCHEMA_VERSION = 1
_SIDE, _CLASSES = 32, 10
_IMAGE_BYTES = 3 * _SIDE * _SIDE
_TIMES = 10  # larger than the memory that it may take
_EPOCHS = 2


class Store(StrEnum):
    """Where the images are, in this order."""

    MEMORY = "in memory"
    ARRAY = "streamed from an .npy file"
    FILES = "streamed from PNG files, decoded each time"


class StreamingJob(BaseModel):
    """One measurement, as it is handed to its process.

    Attributes:
        folder: Holds the data.
        memory: MiB that they may take.
    """

    model_config = ConfigDict(frozen=True)

    store: Store
    folder: str
    memory: int
    batch: int


class Speed(BaseModel):
    """What the process answers.

    Attributes:
        images_per_second: Of the last epoch.
        peak_bytes: Highest resident memory of the process beyond that before it read any data.
        device: For people.
    """

    images_per_second: float
    peak_bytes: int
    device: str


def measure_streaming(*, mib: int, batch: int, rounds: int, progress: Progress) -> dict[str, Any]:
    """Make the data, measure every way in turn, and compare with the data in memory.

    Args:
        mib: Size of the images, in MiB; a tenth of that is the memory that they may take where they are streamed.
        batch: Images per step.
        rounds: How often the ways take turns.
        progress: Told of every measurement.

    Raises:
        ModelpressError: A measurement fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        n_images = write_images(Path(folder), mib)
        measured: dict[Store, list[Speed]] = {store: [] for store in Store}
        progress.start("streaming", rounds * len(Store))
        try:
            for _ in range(rounds):
                for store, done in measured.items():
                    memory = 16 * mib if store is Store.MEMORY else max(mib // _TIMES, 1)
                    done.append(
                        _in_a_process(StreamingJob(store=store, folder=folder, memory=memory, batch=batch))
                    )
                    progress.advance(f"{store}: {done[-1].images_per_second:,.0f} images/s")
        finally:
            progress.finish()

    held = [speed.images_per_second for speed in measured[Store.MEMORY]]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "streaming",
        "environment": {**describe_environment(), "training_device": measured[Store.MEMORY][0].device},
        "images": n_images,
        "data_bytes": n_images * _IMAGE_BYTES,
        "allowed_bytes": max(mib // _TIMES, 1) << 20,
        "batch": batch,
        "ways": [_row(store, speeds, held) for store, speeds in measured.items()],
    }


def _row(store: Store, speeds: list[Speed], held: list[float]) -> dict[str, Any]:
    each = [speed.images_per_second for speed in speeds]
    return {
        "way": str(store),
        "images_per_second": {"median": median(each), "rounds": each},
        "ratio": median(own / other for own, other in zip(each, held, strict=True)),
        "peak_bytes": median(speed.peak_bytes for speed in speeds),
    }


def write_images(folder: Path, mib: int) -> int:
    """Noise around a level for each class: as an array, and as files; returns how many."""
    rng = np.random.default_rng(0)
    n = (mib << 20) // _IMAGE_BYTES
    labels = np.arange(n) % _CLASSES
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (n, 3, _SIDE, _SIDE))
    for start in range(0, n, 1000):
        levels = 40 + 15 * labels[start : start + 1000, None, None, None]
        noise = rng.integers(0, 60, (len(levels), 3, _SIDE, _SIDE))
        images[start : start + 1000] = levels + noise
    images.flush()
    np.save(folder / "labels.npy", labels)

    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        path = folder / "files" / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(np.asarray(image)))
    return n


def _in_a_process(job: StreamingJob) -> Speed:
    done = subprocess.run(
        fresh_process("-m", "modelpress.toolkit.studies.training_speed.streaming"),
        input=job.model_dump_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ModelpressError(f"measuring {job.store} failed: {reason}")
    return Speed.model_validate_json(done.stdout.strip().splitlines()[-1])


def measure(job: StreamingJob) -> Speed:
    """Train here, for two epochs."""
    from modelpress.toolkit.compression.passes.train import train
    from modelpress.toolkit.compression.starting import start

    folder = Path(job.folder)
    arrays = {"data.source": str(folder / "images.npy"), "data.labels": str(folder / "labels.npy")}
    recipe = load_recipe(
        None,
        {
            **({"data.source": str(folder / "files")} if job.store is Store.FILES else arrays),
            "data.memory": job.memory,
            "data.normalise": "imagenet",
            "data.test": 0.0,
            "data.validation": 0.0,
            "data.augment": [],
            "model.factory": "modelpress.toolkit.studies.networks.hand_written:small_cnn",
            "train.epochs": _EPOCHS,
            "train.batch": job.batch,
            "train.lr": 0.01,
        },
    )
    before = _resident()
    state, work = start(recipe, progress=Silent())
    trained = train(state, work)
    last = trained.history["train"][-1]
    return Speed(
        images_per_second=last["images_per_second"],
        peak_bytes=max(_resident() - before, 0),
        device=work.device.describe(),
    )


def _resident() -> int:
    """Highest so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """Measure here; see the module."""
    print(measure(StreamingJob.model_validate_json(sys.stdin.read())).model_dump_json())


if __name__ == "__main__":
    main()
