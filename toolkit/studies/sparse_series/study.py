"""The study: every method on one problem, what it found, and whether that is sparse."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpress.toolkit.progress import Progress
from modelpress.toolkit.sparse_regression.objectives import LeastSquares
from modelpress.toolkit.sparse_regression.penalties import L1, AtMost, NoPenalty, Penalty, TrimmedL1
from modelpress.toolkit.sparse_regression.solvers import Solution, Trace, minimise
from modelpress.toolkit.studies.sparse_series import reference

AT_THE_OPTIMUM = 1e-9  # excess of the squared error, relative to that of w = 0
CLOSED = 1e-6  # duality gap, relative to the objective
SETTLED = 1e-7  # where no gap is known: what a step may still move, relative to the largest weight
_DRAWN_POINTS, _DRAWN_WEIGHTS = 1000, 100


@dataclass(frozen=True)
class Experiment:
    """One method with one parameter.

    Attributes:
        method: As printed.
        parameter: As printed; empty where there is none.
        published: Its final weights in the published series, if it is there.
    """

    method: str
    parameter: str
    solver: str
    penalty: Penalty
    published: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Curves:
    """A trace, thinned out to what a figure can show.

    Attributes:
        steps: Shape ``(points,)``.
        log10_loss: Shape ``(points,)``; NaN where the loss is exactly zero.
        weights: Shape ``(points, drawn)``.
        drawn: Shape ``(drawn,)``: which weights these are; all of them if they are few, else those that moved most.
        n_weights: How many there are in all.
    """

    steps: npt.NDArray[np.intp]
    log10_loss: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    drawn: npt.NDArray[np.intp]
    n_weights: int


@dataclass(frozen=True)
class Outcome:
    """What an experiment found.

    Attributes:
        excess_loss: Squared error above the least that any weights reach.
        support_since: First step from which on the same weights were exactly zero.
        oscillating: Number of weights that changed their sign more than once in the last quarter of the steps.
        largest_difference: From the published weights.
        verdict: Sparse or not; at the least squared error or not, and why.
    """

    experiment: Experiment
    solution: Solution
    excess_loss: float
    support_since: int
    oscillating: int
    largest_difference: float | None
    verdict: str
    curves: Curves

    def as_record(self) -> dict[str, Any]:
        """For `results.json`."""
        found, experiment = self.solution, self.experiment
        return {
            "method": experiment.method,
            "parameter": experiment.parameter,
            "solver": experiment.solver,
            "penalty": type(experiment.penalty).__name__,
            "step": found.step,
            "steps": found.iterations,
            "weights": found.weights.tolist(),
            "published": experiment.published,
            "largest_difference": self.largest_difference,
            "loss": found.loss,
            "excess_loss": self.excess_loss,
            "objective": found.objective,
            "duality_gap": found.duality_gap,
            "residual": found.residual,
            "support_size": found.support_size,
            "support_since": self.support_since,
            "oscillating": self.oscillating,
            "verdict": self.verdict,
        }


def reference_experiments() -> list[Experiment]:
    """Every method and parameter of the published series; FISTA, which is not in it, at the same lambdas."""
    thresholds = {threshold: threshold / reference.STEP for threshold in reference.PROXIMAL_GRADIENT}
    return [
        Experiment("gradient descent", "", "gradient-descent", NoPenalty(), reference.GRADIENT_DESCENT),
        Experiment(
            "iterative pruning",
            f"k = {reference.KEPT}",
            "ista",
            AtMost(reference.KEPT),
            reference.ITERATIVE_PRUNING,
        ),
        *(
            Experiment("L1 subgradient", f"λ = {strength:g}", "subgradient", L1(strength), published)
            for strength, published in reference.SUBGRADIENT.items()
        ),
        *(
            Experiment(
                "proximal gradient",
                f"λ = {strength:g}, t = {threshold:g}",
                "ista",
                L1(strength),
                reference.PROXIMAL_GRADIENT[threshold],
            )
            for threshold, strength in thresholds.items()
        ),
        *(Experiment("FISTA", f"λ = {s:g}", "fista", L1(s)) for s in thresholds.values()),
        *(
            Experiment("trimmed L1", _trimmed(strength, reference.KEPT), "ista", penalty, published)
            for strength, published in reference.TRIMMED_L1.items()
            for penalty in [TrimmedL1(strength, reference.KEPT)]
        ),
    ]


def own_experiments(strengths: Sequence[float], k: int) -> list[Experiment]:
    """The same methods with a user's parameters."""
    return [
        Experiment("gradient descent", "", "gradient-descent", NoPenalty()),
        Experiment("iterative pruning", f"k = {k}", "ista", AtMost(k)),
        *(Experiment("L1 subgradient", f"λ = {s:.4g}", "subgradient", L1(s)) for s in strengths),
        *(Experiment("proximal gradient", f"λ = {s:.4g}", "ista", L1(s)) for s in strengths),
        *(Experiment("FISTA", f"λ = {s:.4g}", "fista", L1(s)) for s in strengths),
        *(Experiment("trimmed L1", _trimmed(s, k), "ista", TrimmedL1(s, k)) for s in strengths),
    ]


def default_strengths(problem: LeastSquares) -> list[float]:
    """Lambdas at 1, 3, 10 and 30 % of the one from which on every weight is zero."""
    return [fraction * problem.strongest_penalty for fraction in (0.01, 0.03, 0.1, 0.3)]


def run_study(
    problem: LeastSquares,
    experiments: Sequence[Experiment],
    *,
    step: float | None,
    steps: int,
    progress: Progress,
) -> list[Outcome]:
    """Carry out experiments from w = 0.

    Raises:
        InputError: A parameter does not fit the problem, or the step size makes a method diverge.
    """
    progress.start("methods", len(experiments))
    try:
        outcomes = []
        for experiment in experiments:
            outcomes.append(_outcome(problem, experiment, step=step, steps=steps))
            progress.advance(f"{experiment.method} {experiment.parameter}")
        return outcomes
    finally:
        progress.finish()


def by_method(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[Outcome]]]:
    """Outcomes grouped by method, in order."""
    for method in dict.fromkeys(outcome.experiment.method for outcome in outcomes):
        yield method, [outcome for outcome in outcomes if outcome.experiment.method == method]


def _outcome(problem: LeastSquares, experiment: Experiment, *, step: float | None, steps: int) -> Outcome:
    found = minimise(
        problem, experiment.penalty, solver=experiment.solver, step=step, max_iterations=steps, trace=True
    )
    trace = found.trace
    assert trace is not None  # asked for
    oscillating = int((trace.sign_changes(last=max(steps // 4, 1)) > 1).sum())
    sparse = "sparse" if found.support_size < len(found.weights) else "not sparse"
    published = experiment.published

    return Outcome(
        experiment=experiment,
        solution=replace(found, trace=None),  # the curves are enough
        excess_loss=max(found.loss - problem.least, 0.0),
        support_since=trace.support_since,
        oscillating=oscillating,
        largest_difference=None if published is None else float(np.abs(found.weights - published).max()),
        verdict=f"{sparse}; {_optimality(problem, experiment, found, oscillating)}",
        curves=_curves(trace),
    )


def _optimality(problem: LeastSquares, experiment: Experiment, found: Solution, oscillating: int) -> str:
    """Against the least squared error, with no penalty at all."""
    if found.loss - problem.least <= AT_THE_OPTIMUM * problem.value_at_zero:
        return "converged to the optimum"
    if not found.is_within(problem, found.weights, gap=CLOSED, move=SETTLED):
        swings = experiment.solver == "subgradient" and oscillating  # its constant step never ends that
        return "oscillates, biased by the penalty" if swings else "not converged"
    biased = experiment.penalty.value(found.weights) > 0
    return "biased by the penalty" if biased else f"stationary with {found.support_size} nonzero"


def _curves(trace: Trace) -> Curves:
    points = np.unique(np.linspace(0, len(trace.loss) - 1, _DRAWN_POINTS).astype(np.intp))
    moved = np.abs(trace.weights).max(axis=0)
    drawn = np.sort(np.argsort(-moved, kind="stable")[:_DRAWN_WEIGHTS])
    loss = trace.loss[points]
    log10_loss = np.full(len(points), np.nan)
    np.log10(loss, out=log10_loss, where=loss > 0)
    return Curves(points, log10_loss, trace.weights[np.ix_(points, drawn)], drawn, len(moved))


def _trimmed(strength: float, k: int) -> str:
    return f"λ = {strength:.4g}, k = {k}"
