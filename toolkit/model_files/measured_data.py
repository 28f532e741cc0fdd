"""The data that a model is measured on, as a command line names them."""

from pathlib import Path
from typing import Any

from modelpress.export.errors import CommandLineError
from modelpress.toolkit.data.measured_set import MeasuredSet
from modelpress.toolkit.data.names import DataSetName
from modelpress.toolkit.recipe import parse_setting
from modelpress.toolkit.recipe_yaml import DESCRIBING, described


def measured_set(
    data: str | None, settings: list[str], dataset: DataSetName | None, data_dir: Path | None
) -> MeasuredSet:
    """What a model is measured on.

    Raises:
        CommandLineError: Both a named set and data of the user's own are given; else as `own_data`.
        InputError: As `own_data`.
    """
    own = own_data(data, settings)
    if own and (dataset is not None or data_dir is not None):
        raise CommandLineError(
            "--data is your own data, --dataset and --data-dir are those with a name: give one of them"
        )
    return MeasuredSet(dataset, None if data_dir is None else str(data_dir), own)


def own_data(data: str | None, settings: list[str]) -> dict[str, dict[str, Any]]:
    """The sections ``data`` and ``task``, as far as they were given; empty without `data`.

    Raises:
        CommandLineError: A setting is of another section, or there are no data that it could be about.
        InputError: A file of sections cannot be read.

    Example:
        >>> own_data("photos", ["data.resize=64", "task=multi-label"])
        {'data': {'source': 'photos', 'resize': 64}, 'task': {'kind': 'multi-label'}}
    """
    if data is None and not settings:
        return {}
    if data is None:
        raise CommandLineError("--set is about your own data: give them with --data PATH")

    sections = described(data)
    for key, value in map(parse_setting, settings):
        section, _, rest = key.partition(".")
        if section == "task" and not rest:
            rest = "kind"
        if section not in DESCRIBING or not rest:
            raise CommandLineError(
                f"--set {key}: expected a key of the sections data or task, as in data.resize"
            )
        sections.setdefault(section, {})[rest] = value
    return sections
