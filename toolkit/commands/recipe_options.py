"""The options that override a key of the recipe, made from the recipe's own fields, and the recipe that results."""

from pathlib import Path
from typing import Annotated, Any

import typer

from modelpress.export.choices import Effort
from modelpress.export.errors import CommandLineError
from modelpress.toolkit.commands.options import DATA, OUTPUT, RECIPE
from modelpress.toolkit.recipe import Recipe, load_recipe, parse_setting, recipe_key, without_training
from modelpress.toolkit.recipe_yaml import described

RECIPES_OWN = "the recipe's"


def recipe_option(
    key: str,
    *names: str,
    more: str = "",
    default: str | bool = RECIPES_OWN,
    panel: str = RECIPE,
    metavar: str | None = None,
) -> Any:
    """An option that stands for a key of the recipe: its meaning and limits are those of the field.

    Args:
        key: Dotted, as in ``quantize.bits``.
        names: As written on the command line; without any, made from the parameter.
        more: Said after the field's own meaning.
        default: What is shown as default.
        panel: Heading of the help text.
        metavar: Stands for the value there.
    """
    field = recipe_key(key)
    return typer.Option(
        *names,
        min=field.least,
        max=field.most,
        help=f"{field.about} {more}".strip(),
        show_default=default,
        rich_help_panel=panel,
        metavar=metavar,
    )


def fraction_option(
    key: str, *names: str, about: str = "", default: str = RECIPES_OWN, panel: str = RECIPE
) -> Any:
    """`recipe_option` for a fraction; a value above 1 is answered with what it was probably meant to be.

    Args:
        key: See there.
        names: See there.
        about: In place of the field's meaning, where it differs.
        default: See there.
        panel: See there.
    """

    def check(value: float | None) -> float | None:
        if value is None or 0 <= value <= 1:
            return value
        meant = f": for {value:g} % give {value / 100:g}" if 1 < value <= 100 else ""
        raise typer.BadParameter(f"{value:g} is no fraction from 0 to 1{meant}.")

    return typer.Option(
        *names,
        callback=check,
        metavar="0..1",
        help=about or recipe_key(key).about,
        show_default=default,
        rich_help_panel=panel,
    )


Config = Annotated[
    Path | None,
    typer.Option(
        "-c",
        "--config",
        metavar="RECIPE",
        help="A YAML file, or the name of a shipped recipe, as in resnet20-cifar10.",
        show_default="the built-in one",
        rich_help_panel=RECIPE,
    ),
]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one key of the recipe, as in quantize.bits=6. Repeatable.",
        rich_help_panel=RECIPE,
    ),
]
FinetuneEpochs = Annotated[
    int | None,
    recipe_option(
        "finetune.epochs",
        "--epochs",
        more="Of the finetuning: schedules shrink or grow with it, and 0 compresses without training.",
    ),
]
Seed = Annotated[int | None, recipe_option("seed", "--seed")]
DeviceName = Annotated[str | None, recipe_option("run.device", "--device")]
Bf16 = Annotated[bool | None, recipe_option("run.bf16", "--bf16/--no-bf16")]
MapNames = Annotated[bool | None, recipe_option("model.map_names", "--map-names/--no-map-names")]
DataDir = Annotated[
    Path | None,
    recipe_option("data.dir", "--data-dir", more="CIFAR-10: binary version, or torchvision's.", panel=DATA),
]
RecipeData = Annotated[
    str | None,
    recipe_option(
        "data.source",
        "--data",
        more="Or a .yaml with the sections data and task.",
        default=False,
        panel=DATA,
        metavar="PATH",
    ),
]
Download = Annotated[
    bool,
    typer.Option("--download", help="Let torchvision fetch CIFAR-10 into --data-dir.", rich_help_panel=DATA),
]
PackEffort = Annotated[
    Effort | None,
    recipe_option("pack.effort", "--effort", default="default, or the recipe's", panel=OUTPUT),
]


def common_keys(
    data: str | None,
    data_dir: Path | None,
    download: bool,
    seed: int | None,
    device: str | None,
    bf16: bool | None,
) -> dict[str, Any]:
    """Recipe keys of the options that every training command has."""
    return {
        "data.source": data,
        "data.dir": data_dir,
        "data.download": download or None,
        "seed": seed,
        "run.device": device,
        "run.bf16": bf16,
    }


def merged_recipe(
    config: Path | None, settings: list[str], options: dict[str, Any], *, epochs: int | None = None
) -> Recipe:
    """The recipe file, shortened to `epochs` of finetuning; then `--set`, then the options that were given.

    Raises:
        InputError: See `load_recipe`.
        CommandLineError: A sparsity is given beside the budget that decides it.
    """
    given = {key: str(v) if isinstance(v, Path) else v for key, v in options.items() if v is not None}
    named = dict(map(parse_setting, settings))
    source = given.pop("data.source", None)
    if source is not None:  # a file of sections says less than --set
        told = {f"{name}.{key}": v for name, part in described(source).items() for key, v in part.items()}
        named = {**told, **named}
    if epochs is not None:
        named.pop("finetune.epochs", None)  # an option wins over --set

    if epochs == 0:
        _tell_cost(config)
    recipe = load_recipe(config, {**named, **given}, epochs=epochs)
    if recipe.prune.budget is not None and "prune.sparsity" in {**named, **given}:
        raise CommandLineError(
            f"sparsity {recipe.prune.sparsity:g} is given beside a budget of {recipe.prune.budget.of}, which decides "
            "how much is removed: leave one of them out"
        )
    return recipe


def _tell_cost(config: Path | None) -> None:
    """What training none costs this recipe."""
    from modelpress.toolkit.commands.console import NOTES

    cost = without_training(load_recipe(config, {}))
    if cost is not None:
        NOTES.print(f"--epochs 0: {cost}", markup=False)
