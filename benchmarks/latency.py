"""Latency in ONNX Runtime: every model in a fresh process, the models taking turns.

The worker is this module itself: ``python -P -m benchmarks.latency JOB`` times one file and prints its samples
(``-P``: a folder of that name where the command is called is not taken for ours).
Models share no process, so none finds the caches or the thread pool of another; rounds spread a drifting
machine over all of them alike.
"""

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.records import LatencyRecord
from export.errors import InputError, ModelpressError

_MIN_CALLS, _MIN_SECONDS = 12, 0.25  # timed per round, batch size and thread count
_WARM_UP = 2
_TIMEOUT_S = 600
Settings = tuple[int, int]  # batch, threads


def measure_latency(
    paths: list[Path],
    *,
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    rounds: int,
    on_round: Callable[[Path], None] = lambda path: None,
) -> dict[Path, list[LatencyRecord]]:
    """Time several files against each other.

    Args:
        paths: `.press` or `.onnx` files.
        batches: Batch sizes; the input is random, seeded, normally distributed.
        threads: Intra-operator thread counts.
        rounds: How often the models take turns; all samples of all rounds count.
        on_round: Called after each file's turn.

    Returns:
        Per file, one record per batch size and thread count; milliseconds per call of one batch.

    Raises:
        ModelpressError: A worker fails; its message is passed on.
    """
    samples: dict[Path, dict[Settings, list[float]]] = {path: defaultdict(list) for path in paths}
    for turn in range(rounds):
        for path in paths[turn % len(paths) :] + paths[: turn % len(paths)]:
            for setting, timed in _run_worker(path, batches, threads):
                samples[path][setting].extend(timed)
            on_round(path)
    return {path: [_summary(*setting, timed) for setting, timed in samples[path].items()] for path in paths}


def _summary(batch: int, threads: int, samples_ns: list[float]) -> LatencyRecord:
    """Percentiles in milliseconds."""
    ms = np.asarray(samples_ns) / 1e6
    p50, p90, p99 = (float(value) for value in np.percentile(ms, (50, 90, 99)))
    return LatencyRecord(
        batch=batch,
        threads=threads,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        min_ms=float(ms.min()),
        samples=ms.size,
    )


def _run_worker(
    path: Path, batches: tuple[int, ...], threads: tuple[int, ...]
) -> list[tuple[Settings, list[float]]]:
    job = json.dumps({"path": str(path), "batches": batches, "threads": threads})
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "benchmarks.latency", job],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelpressError(
            f"{path}: timing took longer than {_TIMEOUT_S} s; use smaller batches"
        ) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ModelpressError(
            f"{path}: timing failed: {lines[-1] if lines else f'exit code {done.returncode}'}"
        )
    return [((batch, n_threads), timed) for batch, n_threads, timed in json.loads(done.stdout)]


def _worker(job: dict[str, Any]) -> list[tuple[int, int, list[int]]]:
    from benchmarks.model_file import open_model
    from export.runtime import open_session, single_input

    serialised = open_model(Path(job["path"])).serialised()
    results = []
    for n_threads in job["threads"]:
        session = open_session(serialised, threads=n_threads)
        node = single_input(session)
        for batch in job["batches"]:
            feed = {node.name: _random_images([batch, *node.shape[1:]])}
            results.append((batch, n_threads, _time_calls(partial(session.run, None, feed))))
    return results


def _random_images(shape: list[Any]) -> npt.NDArray[np.float32]:
    if not all(isinstance(size, int) for size in shape):
        raise InputError(f"model input has shape {shape}; only the batch axis may be dynamic")
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _time_calls(call: Callable[[], object]) -> list[int]:
    """Nanoseconds of each call, after a warm-up."""
    for _ in range(_WARM_UP):
        call()
    samples: list[int] = []
    end = time.perf_counter_ns() + int(_MIN_SECONDS * 1e9)
    while len(samples) < _MIN_CALLS or time.perf_counter_ns() < end:
        began = time.perf_counter_ns()
        call()
        samples.append(time.perf_counter_ns() - began)
    return samples


if __name__ == "__main__":
    try:
        print(json.dumps(_worker(json.loads(sys.argv[1]))))
    except ModelpressError as failure:
        sys.exit(str(failure))
