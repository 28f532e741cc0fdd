"""Early exits: who leaves where, how right that is, and what it saves; one image at a time, on one thread.

Latencies are processor time of the thread that computes, so that other work on the machine counts little; the network
that may be left early and the full one take turns over the same images.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.benchmarks.records import ExitPoint, ExitShare, ExitsRecord
from modelpress.export.errors import ModelError
from modelpress.export.exits.thresholds import ExitRecord
from modelpress.export.isolation.foreign import JobFailed, run_foreign
from modelpress.export.isolation.messages import Array, Facts
from modelpress.export.onnx_flavours.leaving_early import LeavingEarly
from modelpress.export.runtime import open_session

LAST = "last"
_BLOCK = 25  # images before the other network has its turn
_WARM_UP = 10
_JOB = 250  # images of one job, which has a limit of time
_BATCH = 250
_COMMON = np.linspace(0.0, 1.0, 41)  # thresholds of the curve
CLOCK = "processor time of one thread"
Images = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Timed:
    """One pass over some images.

    Attributes:
        seconds: Of each image.
        exits: By which each left; 0 throughout of the full network.
    """

    seconds: npt.NDArray[np.float64]
    exits: npt.NDArray[np.int64]


def run_parts(parts: Sequence[onnx.ModelProto], images: Images) -> list[npt.NDArray[np.float32]]:
    """The logits of every exit for all images, shape ``(n, classes)`` each, the last exit at the end."""
    sessions = [open_session(part.SerializeToString(), threads=1) for part in parts]
    found: list[list[npt.NDArray[np.float32]]] = [[] for _ in parts]
    for start in range(0, len(images), _BATCH):
        known: dict[str, Any] = {}
        for k, session in enumerate(sessions):
            feed = {i.name: known.get(i.name, images[start : start + _BATCH]) for i in session.get_inputs()}
            outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))
            known |= outputs
            found[k].append(next(iter(outputs.values())))
    return [np.concatenate(each) for each in found]


def time_in_turns(early: bytes, full: bytes, images: Images, rounds: int) -> tuple[Timed, Timed]:
    """Both networks over the same images, one at a time, by turns; of each image the fastest round counts.

    They are timed where they compute: inside `foreign_work`, in its process.

    Args:
        early: Serialised, with the number of the exit as its second output.
        full: Serialised.
        images: As they take them.
        rounds: How often.

    Raises:
        InputError: ONNX Runtime does not accept one of them.
        ModelError: It cannot be run.
    """
    models = [np.frombuffer(model, np.uint8) for model in (early, full)]
    found = []
    for start in range(0, len(images), _JOB):
        try:
            found.append(
                run_foreign(_timing_job, {"rounds": rounds}, [*models, images[start : start + _JOB]])[1]
            )
        except JobFailed as error:
            raise ModelError(f"the network with early exits cannot be timed: {error}") from error
    seconds, exits = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    return Timed(seconds[0], exits[0]), Timed(seconds[1], exits[1])


def _timing_job(facts: Facts, arrays: list[Array]) -> tuple[Facts, list[Array]]:
    """Seconds and exits, shapes ``(2, n)``, of the network that may be left early and the full one."""
    *models, images = arrays
    sessions = [open_session(model.tobytes(), threads=1) for model in models]
    names = [session.get_inputs()[0].name for session in sessions]
    for image in images[:_WARM_UP]:
        for session, name in zip(sessions, names, strict=True):
            session.run(None, {name: image[None]})

    seconds = np.full((2, len(images)), np.inf)
    exits = np.zeros((2, len(images)), np.int64)
    for _ in range(facts["rounds"]):
        for start in range(0, len(images), _BLOCK):
            for which, session in enumerate(sessions):
                for k in range(start, min(start + _BLOCK, len(images))):
                    image = images[k : k + 1]
                    began = time.thread_time()
                    outputs = session.run(None, {names[which]: image})
                    seconds[which, k] = min(seconds[which, k], time.thread_time() - began)
                    exits[which, k] = outputs[1][0] if which == 0 else 0
    return {}, [seconds, exits]


def measure_exits(
    early: LeavingEarly,
    full: onnx.ModelProto,
    images: Images,
    labels: npt.NDArray[np.int64],
    *,
    names: tuple[str, str],
    n_timed: int,
    rounds: int = 3,
    on_step: Callable[[str], None] = lambda what: None,
) -> ExitsRecord:
    """Run both forms of a network with exits, and the full network.

    Args:
        early: Of one flavour.
        full: The network without exits, in that flavour.
        images: As the network takes them.
        labels: Of them.
        names: Of the files, of the network with exits and of the full one.
        n_timed: Images to be timed, the first ones.
        rounds: How often.
        on_step: Told what has been done.
    """
    logits = run_parts(early.parts, images)
    used = early.plan.used
    nothing = [0.0] * len(logits)
    record = ExitRecord.of(logits, labels, early.plan.rule, cost=nothing, heads=nothing)
    taken = record.exits_taken(np.array([exit.threshold for exit in used]))
    on_step("exits of all images")

    timed, whole = time_in_turns(
        early.one.SerializeToString(), full.SerializeToString(), images[:n_timed], rounds
    )
    on_step("latency")

    baseline = float(whole.seconds.mean())
    costs = [_mean(timed.seconds[timed.exits == k]) for k in range(len(logits))]
    shares = [
        ExitShare(
            after=used[k].after if k < len(used) else LAST,
            threshold=used[k].threshold if k < len(used) else None,
            share=float((taken == k).mean()),
            top1=_mean(record.right[k][taken == k]),
            alone_top1=float(record.right[k].mean()),
            latency_ms=None if costs[k] is None else 1000 * float(costs[k] or 0.0),
        )
        for k in range(len(logits))
    ]
    return ExitsRecord(
        path=names[0],
        baseline=names[1],
        rule=early.plan.rule,
        exits=shares,
        top1=float(record.right[taken, np.arange(len(taken))].mean()),
        baseline_top1=float(record.right[-1].mean()),
        n_images=len(images),
        n_timed=min(n_timed, len(images)),
        clock=CLOCK,
        latency_ms=1000 * float(timed.seconds.mean()),
        baseline_ms=1000 * baseline,
        overthinking=int((record.right[:-1].any(axis=0) & ~record.right[-1]).sum()),
        curve=_curve(record, costs, baseline),
    )


def _curve(record: ExitRecord, costs: Sequence[float | None], baseline: float) -> list[ExitPoint]:
    """One threshold for all exits, from leaving at once to never; nothing is chosen by these images."""
    known = [cost for cost in costs if cost is not None]
    each = np.array([cost if cost is not None else max(known) for cost in costs])
    points = []
    for threshold in _COMMON:
        taken = record.exits_taken(np.full(record.n_early, threshold))
        right = record.right[taken, np.arange(len(taken))]
        points.append(
            ExitPoint(
                threshold=float(threshold),
                top1=float(right.mean()),
                latency_ratio=float(each[taken].mean() / baseline),
            )
        )
    return points


def _mean(values: npt.NDArray[Any]) -> float | None:
    return float(values.mean()) if values.size else None
