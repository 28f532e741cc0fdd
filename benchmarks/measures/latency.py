"""Latency in ONNX Runtime: every model in a fresh process, the models taking turns.

What would make such figures lie, and what is done about it:

- *A machine that drifts* (clock, temperature, neighbours): models take turns, round by round, each round starting with
  another one; verdicts compare within a round.
- *What is measured beside it*: every turn is a process of its own (`latency_worker`), so caches of the
  runtime, thread pools and the heap are never shared, and batch sizes are timed in ascending order.
- *Threads*: the session's own count, one inter-operator thread; idle threads sleep instead of spinning, so that a
  machine with other work is not judged by who spins. Nothing is pinned to cores or memory nodes: workers
  inherit the affinity of the command (``taskset``, ``numactl``), and several threads are timed where the system puts
  them, as they are for users.
- *Cold caches*: timed calls follow a warm-up, so they show the steady state; the cold start is told apart as session
  creation and first inference. The file is read once before that: the disk is not measured.
- *Python*: calls go through ``InferenceSession.run`` with arrays in and out, the way users call it; the few
  microseconds of it count, alike for all. No garbage is collected meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from modelpress.benchmarks.measures.verdict import mean_interval
from modelpress.benchmarks.measures.worker import run_worker
from modelpress.benchmarks.records import LatencyRecord
from modelpress.benchmarks.subjects.feeding import InputPlan
from modelpress.export.runtime import PROVIDER

Setting = tuple[int, int]  # batch, threads


def session_settings(threads: Sequence[int]) -> dict[str, Any]:
    """How the sessions of a latency measurement are set, for its record."""
    return {
        "provider": PROVIDER,
        "intra_op_threads": list(threads),
        "inter_op_threads": 1,
        "intra_op_spinning": False,
        "graph_optimisations": "all",
    }


@dataclass(frozen=True)
class Contestant:
    """A `.press` or `.onnx` file, and what it is fed with."""

    path: Path
    plan: InputPlan


@dataclass(frozen=True)
class Turn:
    """What one process measured of one file; times in nanoseconds.

    Attributes:
        peak_memory_bytes: Highest resident memory beyond what was there before the file was opened, over all batch
            sizes; None where the system does not tell.
        samples: One per call, by batch size and thread count.
    """

    session_ns: int
    first_inference_ns: int
    peak_memory_bytes: int | None
    samples: dict[Setting, list[int]]

    def medians(self) -> dict[Setting, float]:
        """Nanoseconds of the middle call."""
        return {setting: float(median(timed)) for setting, timed in self.samples.items()}


def measure_latency(
    contestants: Sequence[Contestant],
    *,
    threads: Sequence[int],
    rounds: int,
    on_round: Callable[[Path], None] = lambda path: None,
) -> list[list[Turn]]:
    """Time several files against each other.

    Args:
        contestants: In the order of the result.
        threads: Intra-operator thread counts.
        rounds: How often the models take turns.
        on_round: Called after each file's turn.

    Returns:
        For every contestant its turns, one per round.

    Raises:
        ModelpressError: A worker fails; the file is named and the message passed on.
    """
    turns: list[list[Turn]] = [[] for _ in contestants]
    order = list(range(len(contestants)))
    for turn in range(rounds):
        # another file begins each round, so that none always follows the same one
        first = turn % len(order)
        for index in order[first:] + order[:first]:
            turns[index].append(_take_turn(contestants[index], threads))
            on_round(contestants[index].path)

    return turns


def _take_turn(contestant: Contestant, threads: Sequence[int]) -> Turn:
    feeds = {batch: [asdict(feed) for feed in feeds] for batch, feeds in contestant.plan.feeds.items()}
    job = {"path": str(contestant.path), "threads": list(dict.fromkeys(threads)), "feeds": feeds}
    found = run_worker("modelpress.benchmarks.measures.latency_worker", contestant.path, job)

    return Turn(
        found["session_ns"],
        found["first_inference_ns"],
        found["peak_memory_bytes"],
        {(batch, n_threads): timed for batch, n_threads, timed in found["settings"]},
    )


def latency_records(turns: Sequence[Turn]) -> list[LatencyRecord]:
    """Summaries of all calls of all rounds, by batch size and thread count."""
    return [_summary(setting, [turn.samples[setting] for turn in turns]) for setting in turns[0].samples]


def _summary(setting: Setting, rounds: list[list[int]]) -> LatencyRecord:
    batch, threads = setting
    ms = np.concatenate(rounds) / 1e6
    p50, p90, p95, p99 = (float(value) for value in np.percentile(ms, (50, 90, 95, 99)))
    mean = float(ms.mean())

    return LatencyRecord(
        batch=batch,
        threads=threads,
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        min_ms=float(ms.min()),
        mean_ms=mean,
        mean_interval_ms=mean_interval([float(np.mean(timed)) / 1e6 for timed in rounds]),
        images_per_second=1e3 * batch / mean,
        samples=ms.size,
        rounds=len(rounds),
    )


@dataclass(frozen=True)
class Loading:
    """From a file to the first result; milliseconds, medians over rounds.

    Attributes:
        peak_memory_bytes: The highest of all rounds.
    """

    session_ms: float
    first_inference_ms: float
    peak_memory_bytes: int | None

    @classmethod
    def of(cls, turns: Sequence[Turn]) -> "Loading":
        """Summarise the turns of one file."""
        memory = [turn.peak_memory_bytes for turn in turns if turn.peak_memory_bytes is not None]
        return cls(
            median(turn.session_ns for turn in turns) / 1e6,
            median(turn.first_inference_ns for turn in turns) / 1e6,
            max(memory, default=None),
        )

    def ratio_to(self, baseline: "Loading") -> float:
        """Session creation and first inference together."""
        return (self.session_ms + self.first_inference_ms) / (
            baseline.session_ms + baseline.first_inference_ms
        )
