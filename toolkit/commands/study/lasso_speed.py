"""What `study lasso-speed` does. Nothing here needs torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelpress.toolkit.commands.console import TerminalProgress, print_table
from modelpress.toolkit.commands.study.outcome import StudyAnswer
from modelpress.toolkit.output_folder import check_output_file, write_json
from modelpress.toolkit.studies.sparse_series.lasso_speed import SpeedProblem, measure_lasso_speed

_SPEED = {
    "solver": "solver",
    "fraction": "λ / λmax",
    "nonzero": "nonzero",
    "gap": "relative gap",
    "seconds": "seconds",
    "ratio": "times as fast",
}


def lasso_speed(
    *, samples: int, features: int, fractions: list[float], rounds: int, output: Path | None, overwrite: bool
) -> StudyAnswer:
    """Time the lasso solvers.

    Raises:
        InputError: The file is not usable, or scikit-learn is missing.
    """
    if output is not None:
        check_output_file(output, overwrite=overwrite)

    nonzero = max(1, min(samples, features) // 10)
    problems = [SpeedProblem(samples, features, nonzero, fraction) for fraction in fractions]
    record = measure_lasso_speed(problems, tolerance=1e-6, rounds=rounds, progress=TerminalProgress())

    if output is not None:
        write_json(output, record)
    title = f"Lasso, {samples:,} x {features:,}, to a relative duality gap of 1e-6; median of {rounds}"
    return StudyAnswer(record, lambda: print_table(title, _speed_rows(record), _SPEED))


def _speed_rows(record: dict[str, Any]) -> Iterator[dict[str, str]]:
    for row in record["rows"]:
        for solver in row["solvers"]:
            yield {
                "solver": solver["solver"],
                "fraction": f"{row['problem']['strength_fraction']:g}",
                "nonzero": f"{solver['nonzero']:,}",
                "gap": f"{solver['relative_gap']:.1e}",
                "seconds": f"{solver['median_seconds']:.3f}",
                "ratio": f"{solver['times_as_fast_as_scikit_learn']:.1f}x",
            }
