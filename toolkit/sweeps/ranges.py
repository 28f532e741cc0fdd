"""The ranges that a sweep searches, one a key of a recipe."""

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from pydantic import Field, model_validator

from modelpress.toolkit.section import FiniteFloat, Options

Value = bool | int | float | str | None
Number = int | FiniteFloat
Pair = tuple[Number, Number]


class Suggests(Protocol):
    """What asks a sampler for values; Optuna's trials do."""

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any:
        """One of them."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number, both ends included."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number."""


class Range(Options):
    """Values of one key: exactly one of the four ways."""

    grid: Annotated[tuple[Value, ...], Field(min_length=1)] | None = None
    """Values, all of which the grid sampler tries with all those of the other keys."""
    choices: Annotated[tuple[Value, ...], Field(min_length=1)] | None = None
    """Values without an order."""
    uniform: Pair | None = None
    """Lowest and highest value; whole numbers where both are."""
    log_uniform: Annotated[Pair | None, Field(alias="log-uniform")] = None
    """The same, evenly over the logarithm; above 0."""

    @model_validator(mode="after")
    def _one_way(self) -> "Range":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give one of grid, choices, uniform, log-uniform")
        bounds = self.bounds
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError(f"{bounds[0]} .. {bounds[1]}: the lowest value comes first")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError("log-uniform needs a lowest value above 0")
        if self.values and len(set(map(repr, self.values))) < len(self.values):
            raise ValueError("a value is named twice")
        return self

    @property
    def values(self) -> tuple[Value, ...]:
        """Those that can be counted; empty for a range of numbers."""
        return self.grid or self.choices or ()

    @property
    def bounds(self) -> Pair | None:
        """The ends of a range of numbers."""
        return self.uniform or self.log_uniform

    @property
    def ends(self) -> tuple[Value, ...]:
        """Values that must be good in a recipe for all of them to be."""
        return self.values or self.bounds or ()

    def suggested(self, trial: Suggests, key: str) -> Any:
        """A value for one trial.

        Example:
            >>> class Lowest:
            ...     def suggest_int(self, name, low, high, *, log=False):
            ...         return low
            >>> Range(uniform=(2, 8)).suggested(Lowest(), "quantize.bits")
            2
        """
        if self.bounds is None:
            return trial.suggest_categorical(key, self.values)
        low, high = self.bounds
        log = self.log_uniform is not None
        if isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(key, low, high, log=log)
        return trial.suggest_float(key, float(low), float(high), log=log)
