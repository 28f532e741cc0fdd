"""What trials are compared by: measures with limits, and the front of those that nothing beats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from modelpress.benchmarks.records import Results
from modelpress.benchmarks.report.comparison import headline_model
from modelpress.benchmarks.report.tables import headline_latency
from modelpress.export.errors import InputError
from modelpress.toolkit.section import FiniteFloat, Options

MeasureName = Literal["validation", "bytes", "latency", "flash", "macs"]
MEASURES: tuple[MeasureName, ...] = get_args(MeasureName)
IN_FIRMWARE: tuple[MeasureName, ...] = ("flash", "macs")


class Objective(Options):
    """A measure to be made better, and how good it must be."""

    measure: MeasureName
    """validation (accuracy or the task's metric, on held-out examples), bytes (of model.press), latency (ms a call of
    the artifact at the recipe's smallest batch), flash (bytes of weights in firmware), macs (multiplications run)."""
    at_most: Annotated[FiniteFloat | None, Field(alias="at-most")] = None
    """Trials above it are on no front."""
    at_least: Annotated[FiniteFloat | None, Field(alias="at-least")] = None
    """Trials below it are on no front."""

    @model_validator(mode="after")
    def _limits_leave_room(self) -> "Objective":
        if self.at_most is not None and self.at_least is not None and self.at_least > self.at_most:
            raise ValueError("at-least is above at-most: nothing is within both")
        return self

    @property
    def limited(self) -> bool:
        """Whether it has a limit."""
        return self.at_most is not None or self.at_least is not None

    def violation(self, value: float) -> float:
        """How far a value is beyond the limits; 0 or less within.

        Example:
            >>> Objective(**{"measure": "bytes", "at-most": 50000}).violation(60000.0)
            10000.0
        """
        above = value - self.at_most if self.at_most is not None else float("-inf")
        below = self.at_least - value if self.at_least is not None else float("-inf")
        return max(above, below) if self.limited else 0.0


def lower_is_better(measure: MeasureName, *, validation: bool) -> bool:
    """The direction of a measure.

    Args:
        measure: Which.
        validation: Whether the task's own figure is better when lower.
    """
    return validation if measure == "validation" else True


def measured(measures: Sequence[MeasureName], results: Results, firmware: Mapping[str, Any]) -> list[float]:
    """The values of a trial, from what its run measured.

    Raises:
        InputError: The run did not measure one of them.
    """
    return [_measured(measure, results, firmware) for measure in measures]


def _measured(measure: MeasureName, results: Results, firmware: Mapping[str, Any]) -> float:
    packed = headline_model(results)
    latency = headline_latency(packed)
    metric = packed.metric
    found: dict[MeasureName, float | None] = {
        "validation": packed.top1 if metric is None else metric.value,
        "bytes": packed.size_bytes,
        "latency": None if latency is None else latency.p50_ms,
        "flash": firmware.get("weight_bytes"),
        "macs": firmware.get("products_run"),
    }
    value = found[measure]
    if value is None:
        raise InputError(f"objective {measure}: this run did not measure it")
    return float(value)


@dataclass(frozen=True)
class Direction:
    """Which trials beat which.

    Attributes:
        lower: For each objective, whether lower is better.
    """

    lower: tuple[bool, ...]

    def beats(self, this: Sequence[float], other: Sequence[float]) -> bool:
        """Whether one is no worse in anything, and better in something.

        Example:
            >>> Direction((False, True)).beats([0.9, 100], [0.8, 100])
            True
        """
        signed = [(a, b) if low else (-a, -b) for a, b, low in zip(this, other, self.lower, strict=True)]
        return all(a <= b for a, b in signed) and any(a < b for a, b in signed)

    def front(self, points: Mapping[int, Sequence[float]]) -> list[int]:
        """Numbers of those that none of the others beats, ascending.

        Example:
            >>> Direction((False, True)).front({0: [0.9, 100], 1: [0.8, 50], 2: [0.7, 60]})
            [0, 1]
        """
        return sorted(
            number
            for number, values in points.items()
            if not any(self.beats(other, values) for other in points.values())
        )
