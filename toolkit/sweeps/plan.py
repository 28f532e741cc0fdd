"""The file of a sweep: a base recipe, ranges, objectives, and how trials are chosen and placed."""

import difflib
import hashlib
import json
from collections.abc import Mapping
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from modelpress.export.errors import InputError
from modelpress.export.files.inputs import read_input
from modelpress.toolkit.recipe import Recipe, load_recipe
from modelpress.toolkit.recipe_yaml import MAX_BYTES, load_yaml
from modelpress.toolkit.section import Options, PositiveInt
from modelpress.toolkit.sweeps.objectives import MEASURES, MeasureName, Objective
from modelpress.toolkit.sweeps.ranges import Range

_WAYS = ("grid", "choices", "uniform", "log-uniform")
_MOST_CHECKED = 64  # combinations of ends tried before anything starts


class Resources(Options):
    """What one trial takes on the machine it runs on."""

    cpus: PositiveInt = 1
    """Cores, and threads of the training."""
    gpus: Annotated[float, Field(ge=0, le=64)] = 0
    """Devices; a fraction shares one."""
    memory: Annotated[float, Field(ge=0)] = 0
    """GiB that must be free; 0: not asked."""


class Sweep(Options):
    """A whole search."""

    base: str | None = None
    """A recipe: a file beside this one, or the name of a shipped recipe; without it the defaults."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Values by dotted key over that recipe, the same in every trial."""
    search: Annotated[dict[str, Range], Field(min_length=1)]
    """By dotted key of a recipe, what is tried; `quantize.layers.PATTERN` is the width of layers by name."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)]
    """Measures, with limits."""
    trials: PositiveInt = 20
    """How many; a grid has no more than its points."""
    sampler: Literal["tpe", "nsga2", "random", "grid"] = "tpe"
    """Who chooses: tpe (models what was good), nsga2 (evolves a front), random, grid (every combination)."""
    pruner: Literal["none", "median", "halving"] = "none"
    """Trials that fall behind after an epoch are ended; for the one objective `validation`."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the sampler; the recipes' own is a key of theirs."""
    storage: str | None = None
    """URL of a database for the study, as Optuna takes it; without it `study.log` in the folder."""
    study: Annotated[str, Field(min_length=1, max_length=200)] = "modelpress"
    """Name of the study in its storage."""
    retries: Annotated[int, Field(ge=0, le=100)] = 3
    """How often a trial is started again whose worker was killed."""
    resources: Resources = Resources()
    """Of each trial."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "Sweep":
        names = self.measures
        if len(set(names)) < len(names):
            raise ValueError("objectives name a measure twice")
        if self.pruner != "none" and names != ("validation",):
            raise ValueError("pruner watches validation after each epoch: it needs that one objective alone")
        if self.sampler == "grid":
            loose = [key for key, each in self.search.items() if not each.values]
            if loose:
                raise ValueError(f"sampler grid needs values to count: give {loose[0]} as grid or choices")
        return self

    @property
    def measures(self) -> tuple[MeasureName, ...]:
        """Of the objectives, in order."""
        return tuple(objective.measure for objective in self.objectives)

    @property
    def n_trials(self) -> int:
        """How many there will be."""
        points = prod(len(each.values) for each in self.search.values())
        return min(self.trials, points) if self.sampler == "grid" else self.trials

    def cell(self, number: int) -> dict[str, Any]:
        """The combination of that number on the grid, the last key running fastest.

        Example:
            >>> search = {"quantize.bits": Range(grid=(3, 4)), "seed": Range(grid=(0, 1))}
            >>> Sweep(search=search, objectives=[{"measure": "bytes"}], sampler="grid").cell(2)
            {'quantize.bits': 4, 'seed': 0}
        """
        chosen = {}
        for key, each in reversed(self.search.items()):
            number, place = divmod(number, len(each.values))
            chosen[key] = each.values[place]
        return {key: chosen[key] for key in self.search}


class Plan:
    """A sweep with its base recipe, checked.

    Args:
        sweep: What is searched.
        base: Recipe file or name; None for the defaults.

    Raises:
        InputError: A key is none of a recipe's, or a value of a range is not good in it.
    """

    def __init__(self, sweep: Sweep, base: Path | None) -> None:
        self.sweep, self._base = sweep, base
        self.base = load_recipe(base, sweep.set)
        for chosen in islice(product(*(each.ends for each in sweep.search.values())), _MOST_CHECKED):
            self.recipe(dict(zip(sweep.search, chosen, strict=True)))

    def recipe(self, chosen: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial.

        Raises:
            InputError: The values do not go together.
        """
        return load_recipe(self._base, {**self.sweep.set, **chosen})

    def fingerprint(self) -> str:
        """Names what is searched: a sweep with more trials, or on other machines, is the same."""
        places = {"trials", "storage", "study", "retries", "resources", "base", "set"}
        facts = {
            "base": self.base.model_dump(mode="json"),
            "sweep": self.sweep.model_dump(mode="json", exclude=places),
        }
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def load_plan(path: Path, *, trials: int | None = None) -> Plan:
    """Read and check the file of a sweep.

    Args:
        path: YAML.
        trials: In place of the file's.

    Raises:
        InputError: The file is unreadable, or a key, a range, an objective or a value is not good; each is named.
    """
    try:
        document = load_yaml(read_input(path, most=MAX_BYTES).decode())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"sweep {path}: is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise InputError(f"sweep {path}: expected keys and values, as in search, objectives")
    if trials is not None:
        document["trials"] = trials

    try:
        sweep = Sweep.model_validate(document)
    except ValidationError as error:
        raise InputError(f"sweep {path}: {'; '.join(map(_explain, error.errors()))}") from error
    return Plan(sweep, _base_of(sweep, path.parent))


def _base_of(sweep: Sweep, folder: Path) -> Path | None:
    if sweep.base is None:
        return None
    beside = folder / sweep.base
    return beside if beside.is_file() else Path(sweep.base)


def _explain(error: Any) -> str:
    """One problem in a user's words, with the nearest name where one is wrong."""
    where = ".".join(str(part) for part in error["loc"])
    name = str(error["loc"][-1]) if error["loc"] else ""
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"unknown key {where!r}; {_nearest(name, _names_beside(error['loc']))}"
    if error["type"] == "literal_error" and name == "measure":
        return (
            f"objective {error['input']!r} is measured by nobody; {_nearest(str(error['input']), MEASURES)}"
        )
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where} is {error['input']!r}: {message[0].lower()}{message[1:]}"


def _names_beside(location: tuple[Any, ...]) -> tuple[str, ...]:
    match location:
        case ("search", _, _):
            return _WAYS
        case ("objectives", _, _):
            return ("measure", "at-most", "at-least")
        case ("resources", _):
            return tuple(Resources.model_fields)
        case _:
            return tuple(Sweep.model_fields)


def _nearest(name: str, valid: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.0)
    return f"did you mean {near[0]!r}? Valid: {', '.join(valid)}"
