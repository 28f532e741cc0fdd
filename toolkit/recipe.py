"""The recipe: everything a run does, as one validated document.

A recipe file is YAML with the keys of `Recipe`; what it leaves out keeps the default given here. The
defaults are a complete run by themselves: the embedded digits, a ResNet-20 trained from scratch.
"""

import difflib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from modelpress.export.choices import FlavourName
from modelpress.export.errors import CommandLineError, InputError
from modelpress.export.files.inputs import read_input
from modelpress.export.files.kinds import Wanted, check_kind, meant_in
from modelpress.toolkit.data.options import DataOptions, NormalisationOptions, Task, TaskOptions
from modelpress.toolkit.recipe_sections import (
    BenchOptions,
    BudgetOptions,
    CalibrateOptions,
    ExitOptions,
    FinetuneOptions,
    LayerBits,
    ModelOptions,
    PackOptions,
    PruneOptions,
    QuantizeOptions,
    RunOptions,
    TrainingOptions,
)
from modelpress.toolkit.recipe_yaml import MAX_BYTES, load_yaml
from modelpress.toolkit.section import Options

__all__ = [
    "BenchOptions",
    "BudgetOptions",
    "CalibrateOptions",
    "DataOptions",
    "ExitOptions",
    "FinetuneOptions",
    "LayerBits",
    "ModelOptions",
    "NormalisationOptions",
    "PackOptions",
    "PruneOptions",
    "QuantizeOptions",
    "Recipe",
    "RecipeKey",
    "RunOptions",
    "TaskOptions",
    "TrainingOptions",
    "dump_recipe",
    "find_recipe",
    "load_recipe",
    "over_defaults",
    "parse_setting",
    "recipe_key",
    "shipped_recipes",
    "with_epochs",
    "without_training",
]


class Recipe(Options):
    """A whole run."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of every random generator."""
    data: DataOptions = DataOptions()
    task: Task = TaskOptions()
    model: ModelOptions = ModelOptions()
    train: TrainingOptions = TrainingOptions(epochs=12, batch=64, padding=2)
    exits: ExitOptions | None = None
    """Early exits; without the section there are none."""
    prune: PruneOptions = PruneOptions()
    sparsify: TrainingOptions = TrainingOptions(epochs=6, batch=64, lr=0.03, padding=2)
    finetune: FinetuneOptions = FinetuneOptions(epochs=6, batch=64, lr=0.03, padding=2)
    quantize: QuantizeOptions = QuantizeOptions()
    pack: PackOptions = PackOptions()
    onnx: Annotated[tuple[FlavourName, ...], Field(min_length=1)] = ("float", "sparse", "int8-sparse")
    """Flavours written: float, weight-only, sparse, int8, int8-sparse."""
    calibrate: CalibrateOptions = CalibrateOptions()
    bench: BenchOptions = BenchOptions()
    run: RunOptions = RunOptions()

    def __repr__(self) -> str:
        """What differs from the defaults, a line each; `dump_recipe` gives all of it."""
        lines = [f"  {key}: {value}" for key, value in _differences(self, Recipe())]
        return "\n".join(
            ["Recipe with other values than the defaults:", *lines] if lines else ["Recipe: the defaults"]
        )

    @field_validator("finetune", mode="before")
    @classmethod
    def _without_a_price(cls, value: object) -> object:
        """Options of any training will do."""
        return value.model_dump() if type(value) is TrainingOptions else value

    @model_validator(mode="after")
    def _flavours_are_distinct(self) -> "Recipe":
        if len(set(self.onnx)) < len(self.onnx):
            raise ValueError(f"onnx names a flavour twice: {', '.join(self.onnx)}; name each once")
        return self

    @model_validator(mode="after")
    def _zeros_follow_from_a_price(self) -> "Recipe":
        if self.quantize.priced and self.prune.sparsity:
            raise ValueError(
                f"zeros follow from quantize.price, prune.sparsity is {self.prune.sparsity:g}: set prune.sparsity to 0"
            )
        return self

    @model_validator(mode="after")
    def _exits_need_classes_and_held_out_images(self) -> "Recipe":
        if self.exits is None:
            return self
        if self.task.kind != "classification" or self.task.metric is not None:
            raise ValueError("exits: early exits are for classification judged by top-1")
        if self.data.validation == 0:
            raise ValueError(
                "exits: thresholds are chosen on held-out images, and data.validation is 0: set it above 0, as in 0.1"
            )
        return self

    @model_validator(mode="after")
    def _penalty_needs_training(self) -> "Recipe":
        if self.prune.by_penalty and self.sparsify.epochs == 0:
            raise ValueError(
                f"prune.method {self.prune.method} works by training: set sparsify.epochs above 0"
            )
        return self

    @model_validator(mode="after")
    def _schedules_end_within_the_run(self) -> "Recipe":
        epochs = self.finetune.epochs
        if self.prune.scheduled and self.prune.epochs > epochs:
            raise ValueError(
                f"the pruning schedule is longer than the run: prune.epochs is {self.prune.epochs}, finetune.epochs "
                f"{epochs}; lower prune.epochs, or set prune.schedule to one-shot"
            )
        if self.quantize.after and self.quantize.after >= max(epochs, 1):
            raise ValueError(
                f"weights would never be finetuned on their grid: quantize.after is {self.quantize.after}, "
                f"finetune.epochs {epochs}; lower quantize.after"
            )
        return self

    @model_validator(mode="after")
    def _a_price_needs_grids_that_stay(self) -> "Recipe":
        grid = self.quantize
        fits = grid.symmetric and grid.range == "mse" and not grid.learned
        if self.finetune.priced and not fits:
            raise ValueError(
                "a price per byte needs codes whose zero is zero and grids that stay: set quantize.symmetric to true, "
                "range to mse and learned to false"
            )
        return self

    @model_validator(mode="after")
    def _training_from_scratch_has_no_teacher_of_its_own(self) -> "Recipe":
        if self.train.distill_weight and self.model.teacher is None:
            raise ValueError(
                "train.distill_weight: a network trained from scratch has no teacher; name one with "
                "model.teacher, or set it to 0"
            )
        return self


def _differences(options: Options, defaults: Options, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys and values that are not the defaults."""
    for name in type(options).model_fields:
        value, default = getattr(options, name), getattr(defaults, name)
        if isinstance(value, Options) and isinstance(default, Options):  # a section may be optional
            yield from _differences(value, default, f"{prefix}{name}.")
        elif value != default:
            yield prefix + name, value


def load_recipe(
    path: Path | str | None = None, overrides: Mapping[str, Any] | None = None, *, epochs: int | None = None
) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: YAML file or the name of a shipped recipe, see `find_recipe`; None for the defaults.
        overrides: Values by dotted key, which win over the file.
        epochs: Of the finetuning, in place of the file's; schedules shrink or grow with it, see `with_epochs`.

    Raises:
        InputError: The file is unreadable, a key is unknown or a value out of range; each is named.
        CommandLineError: The file alone is good, and the overrides or epochs are not.

    Example:
        >>> load_recipe(overrides={"quantize.bits": 3, "seed": 7})
        Recipe with other values than the defaults:
          seed: 7
          quantize.bits: 3
    """
    document = over_defaults(_read_yaml(find_recipe(Path(path))) if path is not None else {})
    source = f"recipe {path}" if path is not None else "recipe"
    file_alone = deepcopy(document)

    try:
        if epochs is not None:
            document = with_epochs(_validated(document, source), epochs).model_dump(mode="json")
        if isinstance(document.get("task"), str):  # a word stands for the section
            document["task"] = {"kind": document["task"]}
        for key, value in (overrides or {}).items():
            # layer patterns below the second level may hold dots
            _place(document, ("task.kind" if key == "task" else key).split(".", 2), value, key)
        return _validated(document, source)
    except InputError as error:
        if _is_valid(file_alone):
            raise CommandLineError(str(error)) from error
        raise


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with another number of epochs of finetuning, schedules and training with a penalty in proportion.

    With 0 nothing is trained after the dense network: what the recipe removes during a training is removed at once,
    by magnitude, see `without_training`.

    Args:
        recipe: Any.
        epochs: Of the finetuning.

    Raises:
        InputError: The number is out of range.

    Example:
        >>> recipe = load_recipe(Path("resnet20-cifar10-s70-w4"), {})
        >>> short = with_epochs(recipe, 5)
        >>> recipe.finetune.epochs, recipe.prune.epochs, short.finetune.epochs, short.prune.epochs
        (20, 8, 5, 2)
    """
    planned = recipe.finetune.epochs

    def share(n: int) -> int:
        return max(1, round(n * epochs / planned)) if n and planned else n

    document = recipe.model_dump(mode="json")
    document["finetune"]["epochs"] = epochs

    if epochs:
        document["prune"]["epochs"] = share(recipe.prune.epochs)
        document["quantize"]["after"] = min(share(recipe.quantize.after), epochs - 1)
        if recipe.prune.by_penalty:
            document["sparsify"]["epochs"] = share(recipe.sparsify.epochs)
    else:
        document["prune"]["schedule"] = "one-shot"
        document["quantize"]["after"] = 0
        if recipe.prune.by_penalty:
            # the penalty of a group lasso removes whole channels
            whole_channels = recipe.prune.method == "group-lasso"
            document["prune"]["method"] = "global-magnitude"
            document["prune"]["granularity"] = "channel" if whole_channels else "weight"
    return _validated(document, f"--epochs {epochs}")


def without_training(recipe: Recipe) -> str | None:
    """What 0 epochs cost a recipe that removes weights during a training; None for any other.

    Example:
        >>> without_training(Recipe()) is None
        True
        >>> without_training(load_recipe(Path("resnet20-cifar10-s70-w4"), {})).split(";")[0]
        'the recipe removes 70% of the weights during its training (cubic schedule)'
    """
    if recipe.prune.by_penalty:
        how = f"penalty {recipe.prune.method}"
    elif recipe.prune.scheduled:
        how = f"{recipe.prune.schedule} schedule"
    else:
        return None
    return (
        f"the recipe removes {recipe.prune.sparsity:.0%} of the weights during its training ({how}); without training "
        "they are removed at once, by magnitude, which costs much more accuracy"
    )


def shipped_recipes() -> dict[str, Path]:
    """The recipes that are installed with the package, by name.

    Example:
        >>> "resnet20-cifar10" in shipped_recipes()
        True
    """
    folder = Path(str(files("modelpress"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(path: Path) -> Path:
    """The file of that path, else the shipped recipe of that name.

    Raises:
        InputError: There is neither, or it is a folder.
    """
    if path.exists() and not path.is_dir():
        return path  # a pipe too: reading it says what it is
    shipped = shipped_recipes()
    name = path.stem if path.suffix in (".yaml", ".yml") else path.name
    if str(path) == path.name and name in shipped:
        return shipped[name]

    expected = f"expected a YAML file or the name of a shipped recipe: {', '.join(shipped)}"
    if path.is_dir():
        raise InputError(f"recipe {path}: is a folder; {meant_in(path, Wanted.RECIPE) or expected}")
    near = difflib.get_close_matches(name, shipped, n=2)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise InputError(f"recipe {path}: cannot be read: No such file or directory; {hint}{expected}")


@dataclass(frozen=True)
class RecipeKey:
    """What is known of one option of a recipe.

    Attributes:
        about: Its meaning.
        least: Its lowest value, where it has one.
        most: Its highest value, where it has one.
    """

    about: str
    least: float | None
    most: float | None


def recipe_key(key: str) -> RecipeKey:
    """Meaning and limits of a dotted key, so that command-line options need not repeat them.

    Example:
        >>> recipe_key("quantize.bits")
        RecipeKey(about='Code width.', least=2, most=8)
    """
    *sections, name = key.split(".")
    field = _section_at(tuple(sections)).model_fields[name]
    least: Any = None
    most: Any = None

    for limit in field.metadata:
        match limit:
            case Ge():
                least = limit.ge
            case Gt():
                # a whole number above a bound is at least the next one
                least = limit.gt + 1 if field.annotation is int else limit.gt  # type: ignore[operator]
            case Le():
                most = limit.le
            case Lt():
                most = limit.lt - 1 if field.annotation is int else limit.lt  # type: ignore[operator]

    return RecipeKey(field.description or "", least, most)


def parse_setting(text: str) -> tuple[str, Any]:
    """Split ``key.subkey=value``; the value is read as YAML.

    Raises:
        InputError: There is no equals sign, or the value is no YAML.

    Example:
        >>> parse_setting("quantize.bits=6")
        ('quantize.bits', 6)
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise CommandLineError(f"--set {text!r}: expected key=value, as in quantize.bits=4")
    try:
        return key.strip(), load_yaml(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CommandLineError(f"--set {text[:80]!r}: the value is no YAML") from error


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe as YAML, every key with its meaning."""
    return "\n".join(_commented(recipe, "")) + "\n"


def _commented(options: Options, indent: str) -> Iterator[str]:
    values = options.model_dump(mode="json")
    for name, field in type(options).model_fields.items():
        section = getattr(options, name)
        if isinstance(section, Options) and not indent:  # deeper ones are collections on one line
            yield f"{name}:"
            yield from _commented(section, indent="  ")
        else:
            flow = isinstance(values[name], list | dict)  # collections on one line
            text = (
                f"{name}: {yaml.safe_dump(values[name], default_flow_style=True, width=1000).strip()}"
                if flow
                else yaml.safe_dump({name: values[name]}, default_flow_style=False, width=1000).strip()
            )
            yield f"{indent}{text:<34}  # {field.description}"


def _validated(document: dict[str, Any], source: str) -> Recipe:
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise InputError(f"{source}: {'; '.join(map(_explain, error.errors()))}") from error


def _is_valid(document: dict[str, Any]) -> bool:
    try:
        Recipe.model_validate(document)
    except ValidationError:
        return False
    return True


def _read_yaml(path: Path) -> dict[str, Any]:
    check_kind(path, Wanted.RECIPE)
    try:
        document = load_yaml(read_input(Path(path), most=MAX_BYTES).decode())
    except InputError as error:
        raise InputError(f"recipe {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"recipe {path}: is no YAML: {' '.join(str(error).split())}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InputError(f"recipe {path}: expected keys and values, got a {type(document).__name__}")

    if "schema_version" in document:  # a manifest or results; JSON is YAML too
        raise InputError(
            f"recipe {path}: is a record of a finished run, no recipe; give the recipe that the run was started with, "
            "or save what stands under its key `recipe` as a .yaml file"
        )

    return document


def over_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """Fill every section with its defaults; inside a section, given keys win whole."""
    defaults = Recipe().model_dump(mode="json")
    for key, value in document.items():
        both_sections = isinstance(defaults.get(key), dict) and isinstance(value, dict)
        defaults[key] = {**defaults[key], **value} if both_sections else value
    return defaults


def _place(document: dict[str, Any], keys: list[str], value: Any, full: str) -> None:
    for key in keys[:-1]:
        if document.get(key) is None:  # absent, or a section that is optional
            document[key] = {}
        document = document[key]
        if not isinstance(document, dict):
            raise InputError(f"{full}: {key} has no keys below it")
    document[keys[-1]] = value


_UNION_BRANCHES = ("constrained-", "literal[")  # pydantic names the branch of a union in the location


def _explain(error: Any) -> str:
    """One problem of pydantic's list in a user's words."""
    where = ".".join(str(part) for part in error["loc"] if not str(part).startswith(_UNION_BRANCHES))
    if error["type"] == "extra_forbidden":
        valid = _keys_at(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), valid, n=1, cutoff=0.0)
        return f"unknown key {where!r}; did you mean {near[0]!r}? Valid keys: {', '.join(valid)}"

    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] == "value_error":
        return f"{where}: {message}" if where else message
    hint = _percentage_hint(error)
    return f"{where} is {error['input']!r}: {message[0].lower()}{message[1:]}{hint}"


def _percentage_hint(error: Any) -> str:
    """For a fraction that was given in percent: how it is written."""
    value = error["input"]
    is_percentage = (
        error.get("ctx", {}).get("le") == 1 and isinstance(value, int | float) and 1 < value <= 100
    )
    return f"; for {value:g} % write {value / 100:g}" if is_percentage else ""


def _keys_at(location: tuple[Any, ...]) -> list[str]:
    return list(_section_at(location).model_fields)


def _section_at(location: tuple[Any, ...]) -> type[BaseModel]:
    model: type[BaseModel] = Recipe
    for key in location:
        annotation = model.model_fields[str(key)].annotation
        # an optional section is one or None
        section = next(kind for kind in (get_args(annotation) or (annotation,)) if kind is not type(None))
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        model = section
    return model
