"""The driver of a sweep: asks the study for trials, sends them to the cluster, tells the study what they came to."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelpress.benchmarks.report.sweep_page import shown_value
from modelpress.export.errors import InputError, ModelpressError
from modelpress.export.files.atomic import write_atomically
from modelpress.toolkit.data.tasks import metric_of
from modelpress.toolkit.output_folder import MANIFEST, prepare_output_folder
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.sweeps.cluster import Cluster, Ended, Started, connected
from modelpress.toolkit.sweeps.memory import STUDY_FILE, Memory
from modelpress.toolkit.sweeps.objectives import Direction, lower_is_better
from modelpress.toolkit.sweeps.outcome import TRIALS, finish, trial_folder
from modelpress.toolkit.sweeps.plan import Plan
from modelpress.toolkit.sweeps.worker import (
    Epoch,
    Files,
    Job,
    check_weights,
    packed,
    places_named,
    with_whole_paths,
)
from modelpress.toolkit.training.interrupt import Interrupted, StopRequest, stop_on_signal

_LOCK = "sweep.lock"
_WAIT_S = 0.25


def run_sweep(
    plan: Plan, folder: Path, *, address: str | None, resume: bool, progress: Progress
) -> dict[str, Any]:
    """Carry out a sweep, or go on with it.

    Args:
        plan: What is searched.
        folder: Of the study and of a folder for each trial.
        address: Of a Ray cluster; None: one on this machine, for as long as the sweep lasts.
        resume: There must be a sweep to go on with.
        progress: Told of every trial.

    Returns:
        What was found, as `sweep.json` holds it.

    Raises:
        InputError: The folder, the storage or the address is not usable, or weights are not there.
        ModelpressError: No trial was completed.
        Interrupted: Stopped on request; the same call goes on.
    """
    check_weights(plan.base)
    _prepare(folder, resume=resume, stored=plan.sweep.storage is not None)
    lower = tuple(
        lower_is_better(measure, validation=metric_of(plan.base.task).lower_is_better)
        for measure in plan.sweep.measures
    )
    with _alone(folder):
        memory = Memory(plan, folder, lower=lower)
        if memory.unfinished() or memory.asked < plan.sweep.n_trials:
            with connected(address, plan.sweep.resources), stop_on_signal() as stop:
                _Driver(plan, folder, memory, progress, remote=address is not None).drive(stop)
        return finish(plan, folder, memory, Direction(lower), progress)


def _prepare(folder: Path, *, resume: bool, stored: bool) -> None:
    there = (folder / STUDY_FILE).is_file() or (folder / TRIALS).is_dir()
    if resume and not (there or stored):
        raise InputError(f"{folder}/ holds no sweep to resume; choose another --output-dir")
    if not there:
        prepare_output_folder(folder, overwrite=False, resume=None)
    (folder / TRIALS).mkdir(exist_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One driver at a time; the lock ends with the process, however that ends.

    Raises:
        InputError: Another one is at work.
    """
    with (folder / _LOCK).open("w") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such lock on this system
            pass
        except OSError as error:
            raise InputError(f"{folder}/: another process drives this sweep") from error
        yield


@dataclass
class _Driver:
    """One way through the study."""

    plan: Plan
    folder: Path
    memory: Memory
    progress: Progress
    remote: bool
    began: dict[int, float] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)
    unwanted: set[int] = field(default_factory=set)

    def drive(self, stop: StopRequest) -> None:
        """Until all trials are told.

        Raises:
            Interrupted: Stopped on request.
        """
        sweep = self.plan.sweep
        again = self.memory.unfinished()
        if again:
            self.progress.note(f"trials {', '.join(map(str, again))} go on")
        self.progress.start("trials", sweep.n_trials, done=self.memory.asked - len(again))
        cluster = Cluster(sweep.resources, self._carried())

        try:
            while again or cluster.numbers or self.memory.asked < sweep.n_trials:
                if stop.pending:
                    done = self.memory.asked - len(self.memory.unfinished())
                    raise Interrupted(f"stopped with {done} of {sweep.n_trials} trials done")
                while len(cluster.numbers) < cluster.room() and (again or self.memory.asked < sweep.n_trials):
                    self._send(cluster, again.pop(0) if again else self.memory.ask())
                again += self._hear(cluster)
        finally:
            self.progress.finish()

    def _carried(self) -> Mapping[str, bytes]:
        """What machines without our files need; on this machine everything is there."""
        if not self.remote:
            return {}
        places = places_named([self.plan.base])
        return {str(path.absolute()): packed(path) for path in places}

    def _send(self, cluster: Cluster, number: int) -> None:
        place = trial_folder(self.folder, number)
        place.mkdir(exist_ok=True)
        self.began.setdefault(number, time.monotonic())
        try:
            recipe = self.plan.recipe(self.memory.chosen(number))
        except ModelpressError as error:  # values that do not go together
            self._end(number, str(error))
            return
        sweep = self.plan.sweep
        files = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
        cluster.start(
            Job(number, with_whole_paths(recipe), sweep.measures, threads=sweep.resources.cpus, files=files)
        )

    def _hear(self, cluster: Cluster) -> list[int]:
        """Take the news in; returns numbers of trials to send again."""
        again = []
        for news in cluster.news(sorted(self.unwanted), wait_s=_WAIT_S):
            match news:
                case Started():
                    self.memory.started(news.number, news.worker)
                case Epoch():
                    self._keep(news.number, news.files)
                    if news.figure is not None and self.memory.report(news.number, news.step, news.figure):
                        self.unwanted.add(news.number)
                case Ended() if news.outcome is None:
                    again += self._lost(news)
                case Ended():
                    self._ended(news)
        return again

    def _keep(self, number: int, files: Files) -> None:
        # the manifest comes last: with it a folder can be resumed
        for name in sorted(files, key=lambda name: name == MANIFEST):
            write_atomically(trial_folder(self.folder, number) / name, files[name])

    def _lost(self, news: Ended) -> list[int]:
        self.lost[news.number] = self.lost.get(news.number, 0) + 1
        if self.lost[news.number] > self.plan.sweep.retries:
            self._end(news.number, f"its worker was lost {self.lost[news.number]} times: {news.error}")
            return []
        self.progress.note(f"trial {news.number}: its worker was lost; it is started again")
        return [news.number]

    def _ended(self, news: Ended) -> None:
        outcome = news.outcome
        assert outcome is not None
        self._keep(news.number, outcome.files)
        for left in trial_folder(self.folder, news.number).glob(".*.state.safetensors"):
            if left.name not in outcome.files:
                left.unlink()

        if outcome.state == "complete":
            self.memory.complete(news.number, outcome.values, self._seconds(news.number))
            told = ", ".join(map(_shown, self.plan.sweep.measures, outcome.values))
            self.progress.note(f"trial {news.number}: {told}")
            self.progress.advance()
        else:
            self._end(news.number, outcome.error if outcome.state == "failed" else None)

    def _end(self, number: int, error: str | None) -> None:
        self.memory.ended(number, error=error, seconds=self._seconds(number))
        self.progress.note(f"trial {number}: " + ("pruned" if error is None else f"failed: {error}"))
        self.progress.advance()

    def _seconds(self, number: int) -> float:
        return time.monotonic() - self.began[number]


def _shown(measure: str, value: float) -> str:
    return f"{measure} {shown_value(measure, value)}"
