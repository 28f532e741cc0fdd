"""The process that times one file once: ``python -P -m modelpress.benchmarks.measures.latency_worker JOB``.

In this order, so that nothing measured later can lend speed or memory to what is measured earlier:

1. The runtime is started with a model of one node and the file is read once: neither the start of ONNX Runtime nor
   the disk belongs to the model.
2. Resident memory is noted.
3. The file is opened for the first time in this process, with the fewest threads asked for: **session creation**, from
   the path to a session that is ready (ONNX: bytes to session; artifact: decoded and handed over, no ONNX file), then
   the **first inference** at the smallest batch. Whatever happens once per process belongs to it: it does for users.
4. For every thread count a new session, for every batch size in ascending order a warm-up and the timed calls.
5. The highest resident memory since step 2.
"""

import gc
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import TensorProto, helper

from modelpress.benchmarks.measures.memory import highest_memory
from modelpress.benchmarks.subjects.feeding import Feed
from modelpress.benchmarks.subjects.given import Array
from modelpress.export.errors import InputError, ModelpressError
from modelpress.export.runtime import open_session
from modelpress.export.sessions import load_session

if TYPE_CHECKING:
    import onnxruntime as ort

_WARM_UP_CALLS, _WARM_UP_SECONDS = 2, 0.1  # the clock of the processor rises, memory patterns are planned
_MIN_CALLS, _MIN_SECONDS = 12, 0.25  # timed per batch size and thread count
Arrays = dict[str, Array]


def start_runtime() -> None:
    """Open and run a model of one node, so that what the runtime does once is done."""
    axes = ["N"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "start",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, axes)],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    feed = Feed("x", "float32", (1,))

    open_session(bytes(model.SerializeToString()), threads=1).run(None, {"x": feed.array()})


def take_turn(job: dict[str, Any]) -> dict[str, Any]:
    """Carry out a job: ``path``, ``threads`` and, by batch size, the ``feeds``; nanoseconds and bytes.

    Raises:
        ModelpressError: The file cannot be loaded or run.
    """
    path, threads = Path(job["path"]), sorted(job["threads"])
    feeds = {int(batch): [Feed(**feed) for feed in feeds] for batch, feeds in job["feeds"].items()}

    # what every process pays once is no cost of this file: the runtime's start, and a cold disk
    start_runtime()
    path.read_bytes()

    smallest = min(feeds)
    arrays = _arrays(feeds[smallest])

    before = highest_memory(reset=True)
    session_ns, session = timed(lambda: _session(path, threads[0]))
    first_ns, _ = timed(guarded(partial(session.run, None, arrays), f"batch {smallest}"))
    del session

    settings = []
    for n_threads in threads:
        session = _session(path, n_threads)
        for batch in sorted(feeds):
            call = guarded(partial(session.run, None, _arrays(feeds[batch])), f"batch {batch}")
            settings.append([batch, n_threads, time_calls(call)])
        del session, call  # the call holds its session, and two of them would count twice in memory

    highest = highest_memory()
    return {
        "session_ns": session_ns,
        "first_inference_ns": first_ns,
        "peak_memory_bytes": None if highest is None or before is None else highest - before,
        "settings": settings,
    }


def _session(path: Path, threads: int) -> "ort.InferenceSession":
    """Of a file whose size whoever asks has found to be within limits."""
    return load_session(path, threads=threads, spinning=False, max_decoded_bytes=sys.maxsize)


def _arrays(feeds: list[Feed]) -> Arrays:
    return {feed.name: feed.array() for feed in feeds}


def guarded(call: Callable[[], Any], what: str) -> Callable[[], Any]:
    """The same call; what ONNX Runtime raises becomes an error of ours that says where."""

    def run() -> Any:
        try:
            return call()
        except Exception as error:  # onnxruntime's exception classes share no public base
            raise InputError(f"{what}: ONNX Runtime failed: {type(error).__name__}: {error}") from error

    return run


def timed(call: Callable[[], Any]) -> tuple[int, Any]:
    """Nanoseconds of one call, and what it returned."""
    began = time.perf_counter_ns()
    result = call()
    return time.perf_counter_ns() - began, result


def time_calls(call: Callable[[], object]) -> list[int]:
    """Nanoseconds of each call, after a warm-up; Python collects no garbage in between."""
    warm = time.perf_counter() + _WARM_UP_SECONDS
    calls = 0
    while calls < _WARM_UP_CALLS or time.perf_counter() < warm:
        call()
        calls += 1

    # no collection may fall into a timed call
    gc.collect()
    gc.disable()
    samples: list[int] = []
    end = time.perf_counter() + _MIN_SECONDS
    while len(samples) < _MIN_CALLS or time.perf_counter() < end:
        samples.append(timed(call)[0])

    gc.enable()
    return samples


def main(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Do a job given as JSON in the first argument; print what comes out, or exit with a message."""
    try:
        print(json.dumps(work(json.loads(sys.argv[1]))))
    except ModelpressError as failure:
        sys.exit(" ".join(str(failure).split()))
    except MemoryError:
        sys.exit("out of memory; use smaller batches (--batch)")


if __name__ == "__main__":
    main(take_turn)
