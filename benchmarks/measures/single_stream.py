"""Single-stream measurements in the manner of MLPerf Tiny: one image at a time, one thread.

Not an official MLPerf result: the benchmark's own runner drives a device over a serial port, with the benchmark's own
model and sample set. What is alike: 200 images of CIFAR-10, as many of each class, one query after the other, the
median reported, and the accuracy measured on those images.

Source: Banbury et al. 2021, "MLPerf Tiny Benchmark", arXiv:2106.07597, section 4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpress.benchmarks.measures.accuracy import wilson_interval
from modelpress.benchmarks.measures.latency_worker import guarded, main, start_runtime, timed
from modelpress.benchmarks.measures.worker import run_worker
from modelpress.benchmarks.profiles import MLPERF_TINY
from modelpress.benchmarks.records import ProfileEntry, ProfileRecord
from modelpress.export.errors import InputError
from modelpress.export.runtime import single_input
from modelpress.export.sessions import load_session

LABEL = "not an official MLPerf result"
N_SAMPLES = 200
_SEED = 0
_WARM_UP = 10  # images


@dataclass(frozen=True)
class Samples:
    """What is classified, one after the other.

    Attributes:
        images: Network input, shape ``(n, channels, height, width)``.
        labels: None for random numbers.
        described: Where they come from.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64] | None
    described: str


def balanced_choice(labels: npt.NDArray[np.int64], n_classes: int) -> npt.NDArray[np.int64]:
    """Positions of 200 images, as many of each class, seeded, in the order of the data set.

    Raises:
        InputError: A class has too few images, or 200 is no multiple of the number of classes.

    Example:
        >>> chosen = balanced_choice(np.arange(1000) % 10, 10)
        >>> np.bincount(chosen % 10).tolist()
        [20, 20, 20, 20, 20, 20, 20, 20, 20, 20]
    """
    each, rest = divmod(N_SAMPLES, n_classes)
    if rest:
        raise InputError(f"{N_SAMPLES} samples cannot be shared out evenly among {n_classes} classes")

    rng = np.random.default_rng(_SEED)
    chosen = []
    for label in range(n_classes):
        positions = np.flatnonzero(labels == label)
        if len(positions) < each:
            raise InputError(
                f"class {label} has {len(positions)} test images; the profile takes {each} of each class"
            )
        chosen.append(rng.choice(positions, each, replace=False))

    return np.sort(np.concatenate(chosen))


def random_samples(shape: Sequence[int]) -> Samples:
    """200 seeded, normally distributed inputs of a shape without its batch axis: latency only."""
    numbers = np.random.default_rng(_SEED).standard_normal((N_SAMPLES, *shape), np.float32)
    return Samples(numbers, None, f"random numbers, seed {_SEED}")


def measure_profile(
    paths: Sequence[Path],
    names: Sequence[str],
    samples: Samples,
    *,
    passes: int,
    on_pass: Callable[[Path], None] = lambda path: None,
) -> ProfileRecord:
    """Run the samples through every file, one at a time; each pass in a fresh process, files taking turns.

    Args:
        paths: Of `.press` or `.onnx` files.
        names: What the files are called in the record.
        samples: The same for all.
        passes: How often each file goes through all of them; all latencies count.
        on_pass: Called after each.

    Raises:
        ModelpressError: A file cannot be run on them.
    """
    found: list[list[dict[str, Any]]] = [[] for _ in paths]
    order = list(range(len(paths)))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "samples.npy"
        np.save(file, samples.images)

        for turn in range(passes):
            first = turn % len(order)
            for index in order[first:] + order[:first]:
                job = {"path": str(paths[index]), "samples": str(file)}
                found[index].append(
                    run_worker("modelpress.benchmarks.measures.single_stream", paths[index], job)
                )
                on_pass(paths[index])

    return ProfileRecord(
        name=MLPERF_TINY,
        label=LABEL,
        n_samples=len(samples.images),
        batch=1,
        threads=1,
        passes=passes,
        images=samples.described,
        models=[_entry(name, results, samples) for name, results in zip(names, found, strict=True)],
    )


def _entry(name: str, results: list[dict[str, Any]], samples: Samples) -> ProfileEntry:
    nanoseconds = [sample for result in results for sample in result["samples_ns"]]
    middle = median(nanoseconds)

    entry = ProfileEntry(
        path=name,
        p50_ms=middle / 1e6,
        p90_ms=float(np.percentile(nanoseconds, 90)) / 1e6,
        inferences_per_second=1e9 / middle,
    )
    if samples.labels is not None:
        n = len(samples.labels)
        entry.top1 = float(np.mean(np.asarray(results[0]["classes"]) == samples.labels))
        entry.top1_interval = wilson_interval(entry.top1, n)

    return entry


def stream(job: dict[str, Any]) -> dict[str, Any]:
    """In the worker: classify the samples one by one; nanoseconds and the class of each.

    Raises:
        ModelpressError: The file cannot be loaded, or the samples do not fit it.
    """
    images = np.load(job["samples"], allow_pickle=False)
    start_runtime()
    session = load_session(Path(job["path"]), threads=1, spinning=False)
    name = single_input(session).name

    calls = [
        guarded(partial(session.run, None, {name: images[i : i + 1]}), f"image {i}")
        for i in range(len(images))
    ]
    # they are timed again below: the profile counts every sample
    for call in calls[:_WARM_UP]:
        call()

    results = [timed(call) for call in calls]
    return {
        "samples_ns": [nanoseconds for nanoseconds, _ in results],
        "classes": [int(np.argmax(outputs[0])) for _, outputs in results],
    }


if __name__ == "__main__":
    main(stream)
