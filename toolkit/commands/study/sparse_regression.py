"""What `study sparse-regression` does: compute, draw, write, print."""

from pathlib import Path
from typing import Any

from modelpress.benchmarks.environment import describe_environment
from modelpress.benchmarks.report.page import markdown_table
from modelpress.export.files.atomic import write_atomically
from modelpress.toolkit.commands.console import TerminalProgress, answer_line, print_table
from modelpress.toolkit.commands.study.outcome import StudyAnswer
from modelpress.toolkit.output_folder import prepare_output_folder, write_json
from modelpress.toolkit.sparse_regression.objectives import LeastSquares
from modelpress.toolkit.studies.figure_files import save_figure
from modelpress.toolkit.studies.sparse_series import reference
from modelpress.toolkit.studies.sparse_series.figures import method_figure, overview_figure
from modelpress.toolkit.studies.sparse_series.study import (
    Experiment,
    Outcome,
    by_method,
    default_strengths,
    own_experiments,
    reference_experiments,
    run_study,
)
from modelpress.toolkit.studies.sparse_series.tables import load_problem

_SHOWN_WEIGHTS = 8  # wider tables fit no terminal; results.json has all weights
_OWN_STEPS = 1000
_MISSING = "–"


def study_reference(output: Path, *, overwrite: bool) -> StudyAnswer:
    """Run the published series.

    Raises:
        InputError: The folder is not usable.
    """
    return _study(
        output,
        overwrite,
        reference.PROBLEM,
        reference_experiments(),
        step=reference.STEP,
        steps=reference.STEPS,
        source="published series",
    )


def study_own(
    x_path: Path,
    y_path: Path,
    output: Path,
    *,
    strengths: list[float],
    k: int | None,
    step: float | None,
    steps: int | None,
    overwrite: bool,
) -> StudyAnswer:
    """Run the same methods on a user's problem.

    Raises:
        InputError: A file or a parameter does not fit, or the step size diverges.
    """
    problem = load_problem(x_path, y_path)
    experiments = own_experiments(
        strengths or default_strengths(problem), max(1, problem.n_weights // 10) if k is None else k
    )
    source = f"{x_path.name}, {y_path.name}"
    return _study(
        output, overwrite, problem, experiments, step=step, steps=steps or _OWN_STEPS, source=source
    )


def _study(
    output: Path,
    overwrite: bool,
    problem: LeastSquares,
    experiments: list[Experiment],
    *,
    step: float | None,
    steps: int,
    source: str,
) -> StudyAnswer:
    prepare_output_folder(output, overwrite=overwrite, resume=None)
    progress = TerminalProgress()
    outcomes = run_study(problem, experiments, step=step, steps=steps, progress=progress)

    record = _record(problem, outcomes, source=source)
    write_json(output / "results.json", record)
    write_atomically(output / "results.md", _markdown(outcomes).encode())

    progress.start("figures", len(dict(by_method(outcomes))) + 1)
    for method, group in by_method(outcomes):
        save_figure(method_figure(method, group), output, method.lower().replace(" ", "-"))
        progress.advance(method)
    save_figure(overview_figure(outcomes), output, "overview")
    progress.finish()
    return StudyAnswer(record, lambda: _show(problem, outcomes, output))


def _record(problem: LeastSquares, outcomes: list[Outcome], *, source: str) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "kind": "sparse-regression-study",
        "environment": describe_environment(),
        "problem": {
            "source": source,
            "shape": list(problem.X.shape),
            "objective": "||X w - y||^2 + penalty(w)",
            "lipschitz": problem.lipschitz,
            "least_loss": problem.least,
        },
        "rows": [outcome.as_record() for outcome in outcomes],
    }


def _show(problem: LeastSquares, outcomes: list[Outcome], output: Path) -> None:
    n, d = problem.X.shape
    step = outcomes[0].solution.step
    if d <= _SHOWN_WEIGHTS:
        weights = [f"w{i + 1}" for i in range(d)]
        headings = {key: key for key in ("method", "parameter", "figures", *weights)}
        print_table("Final weights", _weight_rows(outcomes, weights), headings, text=("parameter", "figures"))
    print_table(
        f"{n} equations, {d} unknowns, {outcomes[0].solution.iterations} steps of size {step:.4g}",
        [_summary_row(outcome) for outcome in outcomes],
        _summary_headings(outcomes),
        text=("parameter", "verdict"),
    )
    answer_line(
        "loss: squared error without the penalty; since: step from which on the same weights are exactly 0; "
        "gap: the objective is at most so far above its minimum"
    )
    published = [f.largest_difference for f in outcomes if f.largest_difference is not None]
    if published:
        answer_line(
            f"off by: largest difference of a weight from the published one; in all {len(published)} rows at most "
            f"{max(published):.1e}"
        )

    answer_line(f"figures, results.json and results.md are in {output}/")


_SUMMARY = {
    "method": "method",
    "parameter": "parameter",
    "loss": "loss",
    "support": "nonzero",
    "since": "since",
    "gap": "gap",
    "difference": "off by",
    "verdict": "verdict",
}


def _summary_headings(outcomes: list[Outcome]) -> dict[str, str]:
    compared = any(outcome.largest_difference is not None for outcome in outcomes)
    return {key: title for key, title in _SUMMARY.items() if key != "difference" or compared}


def _summary_row(outcome: Outcome) -> dict[str, str]:
    found = outcome.solution
    difference = outcome.largest_difference
    return {
        "method": outcome.experiment.method,
        "parameter": outcome.experiment.parameter,
        "loss": f"{found.loss:.3e}",
        "support": f"{found.support_size:,} of {len(found.weights):,}",
        "since": f"{outcome.support_since:,}",
        "gap": _MISSING if found.duality_gap is None else f"{found.duality_gap:.1e}",
        "difference": _MISSING if difference is None else f"{difference:.1e}",
        "verdict": outcome.verdict,
    }


def _weight_rows(outcomes: list[Outcome], names: list[str]) -> list[dict[str, str]]:
    rows = []
    for outcome in outcomes:
        experiment = outcome.experiment
        label = {"method": experiment.method, "parameter": experiment.parameter, "figures": "ours"}
        rows.append({**label, **dict(zip(names, map(_weight, outcome.solution.weights), strict=True))})
        if experiment.published is not None:
            blank = {"method": "", "parameter": "", "figures": "published"}
            rows.append({**blank, **dict(zip(names, map(_weight, experiment.published), strict=True))})

    return rows


def _weight(value: float) -> str:
    return f"{value:.8f}" if value else "0"


def _markdown(outcomes: list[Outcome]) -> str:
    return markdown_table([_summary_row(outcome) for outcome in outcomes], _summary_headings(outcomes)) + "\n"
