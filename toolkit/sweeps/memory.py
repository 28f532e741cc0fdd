"""What is remembered of a sweep: an Optuna study, which samples, prunes, and knows every trial.

Only the driver of a sweep opens it, so that any of Optuna's storages will do.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from modelpress.export.errors import InputError
from modelpress.toolkit.sweeps.plan import Plan

STUDY_FILE = "study.log"
_FINGERPRINT, _ERROR, _ATTEMPTS = "recipe and ranges", "error", "attempts"
_SECONDS, _WORKER = "seconds", "worker"
_FEWEST_FOR_IMPORTANCE = 4  # finished trials


@dataclass(frozen=True)
class Remembered:
    """One trial.

    Attributes:
        number: From 0.
        chosen: Values by dotted key.
        state: complete, pruned, failed or running.
        values: Of the objectives; empty unless complete.
        within: Whether all limits are kept.
        error: Why it failed.
        attempts: How often it was started.
        seconds: From its first start to its end, or None.
        history: Figure after each epoch, by step.
    """

    number: int
    chosen: dict[str, Any]
    state: str
    values: tuple[float, ...]
    within: bool
    error: str
    attempts: int
    seconds: float | None
    history: dict[int, float]


class Memory:
    """The study of a plan, made or taken up again.

    Args:
        plan: What is searched.
        folder: Of the sweep.
        lower: For each objective, whether lower is better.

    Raises:
        InputError: The storage cannot be opened, or its study is that of another sweep.
    """

    def __init__(self, plan: Plan, folder: Path, *, lower: Sequence[bool]) -> None:
        self._plan, sweep = plan, plan.sweep
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = ["minimize" if low else "maximize" for low in lower]
        where = sweep.storage or str(folder / STUDY_FILE)
        try:
            with _quietly():
                self._study = optuna.create_study(
                    study_name=sweep.study,
                    storage=_storage(where, is_url=sweep.storage is not None),
                    directions=directions,
                    pruner=_pruner(sweep.pruner),
                    load_if_exists=True,
                )
        except Exception as error:  # of the database's driver
            told = " ".join(str(error).split())[:300]
            raise InputError(f"storage {where}: cannot be opened: {type(error).__name__}: {told}") from error
        self._claim(where)

    def _claim(self, where: str) -> None:
        """Write down whose study it is, or compare."""
        own, found = self._plan.fingerprint(), self._study.user_attrs.get(_FINGERPRINT)
        if found is None and not self._study.trials:
            self._study.set_user_attr(_FINGERPRINT, own)
        elif found != own:
            raise InputError(
                f"storage {where}: study {self._study.study_name!r} is that of another sweep (other recipe, ranges, "
                "objectives or sampler); give this one another name (study), storage or --output-dir"
            )

    def unfinished(self) -> list[int]:
        """Numbers of trials that were running when their driver ended."""
        return [trial.number for trial in self._study.get_trials(states=(TrialState.RUNNING,))]

    @property
    def asked(self) -> int:
        """How many trials there are."""
        return len(self._study.get_trials(deepcopy=False, states=_ASKED))

    def ask(self) -> int:
        """A new trial, its values chosen."""
        sweep, number = self._plan.sweep, self.asked
        with _quietly():
            # anew for each trial: a driver that is started again goes on with the same numbers
            self._study.sampler = _sampler(sweep.sampler, seed=sweep.seed + number)
            waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if sweep.sampler == "grid" and not waiting:
                self._study.enqueue_trial(sweep.cell(number))
            asked = self._study.ask()
        self.chosen(asked.number)
        return int(asked.number)

    def chosen(self, number: int) -> dict[str, Any]:
        """The values of a trial; those that its driver had no time to choose are chosen now."""
        trial = self._trial(number)
        with _quietly():
            return {key: each.suggested(trial, key) for key, each in self._plan.sweep.search.items()}

    def started(self, number: int, worker: str) -> None:
        """A worker has begun."""
        trial = self._trial(number)
        trial.set_user_attr(_ATTEMPTS, trial.user_attrs.get(_ATTEMPTS, 0) + 1)
        trial.set_user_attr(_WORKER, worker)

    def attempts(self, number: int) -> int:
        """How often a trial was started."""
        return int(self._trial(number).user_attrs.get(_ATTEMPTS, 0))

    def report(self, number: int, step: int, figure: float) -> bool:
        """A figure after an epoch; returns whether to end the trial."""
        trial = self._trial(number)
        if len(self._plan.sweep.objectives) > 1:  # Optuna compares one figure alone
            trial.set_user_attr(f"epoch {step}", figure)
            return False
        trial.report(figure, step)
        return self._plan.sweep.pruner != "none" and bool(trial.should_prune())

    def complete(self, number: int, values: Sequence[float], seconds: float) -> None:
        """The trial is done."""
        objectives = self._plan.sweep.objectives
        trial = self._trial(number)
        for objective, value in zip(objectives, values, strict=True):
            if objective.limited:
                trial.set_constraint(objective.measure, objective.violation(value))
        trial.set_user_attr(_SECONDS, round(seconds, 3))
        with _quietly():
            self._study.tell(number, list(values))

    def ended(self, number: int, *, error: str | None, seconds: float) -> None:
        """The trial is pruned, or has failed where there is an error."""
        trial = self._trial(number)
        trial.set_user_attr(_SECONDS, round(seconds, 3))
        if error is not None:
            trial.set_user_attr(_ERROR, error)
        with _quietly():
            self._study.tell(number, state=TrialState.FAIL if error is not None else TrialState.PRUNED)

    def trials(self) -> list[Remembered]:
        """Every one, by number."""
        return [_remembered(trial) for trial in self._study.get_trials(deepcopy=False, states=_ASKED)]

    def importance(self) -> list[dict[str, float]]:
        """For each objective, the share of its spread that each key explains; empty where too little is known."""
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        found: list[dict[str, float]] = []
        for place in range(len(self._plan.sweep.objectives)):
            values = {trial.values[place] for trial in done}
            if len(done) < _FEWEST_FOR_IMPORTANCE or len(values) < 2:
                found.append({})
                continue
            with _quietly():
                found.append(_importances(self._study, place))
        return found

    def _trial(self, number: int) -> Any:
        trial_id = self._study.get_trials(deepcopy=False)[number]._trial_id
        return Trial(self._study, trial_id)


_ASKED = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_STATES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def _importances(study: Any, place: int) -> dict[str, float]:
    # the evaluator that needs nothing besides Optuna
    shares = optuna.importance.get_param_importances(
        study,
        evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
        target=lambda trial: trial.values[place],
    )
    return {str(key): round(float(share), 4) for key, share in shares.items()}


def _remembered(trial: FrozenTrial) -> Remembered:
    facts: Mapping[str, Any] = trial.user_attrs
    epochs = {int(key.split()[1]): float(v) for key, v in facts.items() if key.startswith("epoch ")}
    return Remembered(
        number=trial.number,
        chosen=dict(trial.params),
        state=_STATES[trial.state],
        values=tuple(trial.values or ()) if trial.state == TrialState.COMPLETE else (),
        within=all(violation <= 0 for violation in trial.constraints.values()),
        error=str(facts.get(_ERROR, "")),
        attempts=int(facts.get(_ATTEMPTS, 0)),
        seconds=facts.get(_SECONDS),
        history={**epochs, **trial.intermediate_values},
    )


def _storage(where: str, *, is_url: bool) -> BaseStorage:
    return RDBStorage(where) if is_url else JournalStorage(JournalFileBackend(where))


def _sampler(name: str, *, seed: int) -> Any:
    match name:
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        case _:  # of a grid all values are given
            return optuna.samplers.RandomSampler(seed=seed)


def _pruner(name: str) -> Any:
    match name:
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
        case "halving":
            return optuna.pruners.SuccessiveHalvingPruner()
        case _:
            return optuna.pruners.NopPruner()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what Optuna says of parts of it that may change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
