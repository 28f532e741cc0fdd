"""A function of the user's own that gives a torch `Dataset`, or one for each part; anything with a length and items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelpress.export.errors import InputError
from modelpress.export.handoff.bundle_files.image_data import PARTS
from modelpress.toolkit.data.data_set import LABELS, Split
from modelpress.toolkit.data.options import DataOptions
from modelpress.toolkit.data.rows import Array, Index
from modelpress.toolkit.data.sources.found import Found, Part
from modelpress.toolkit.user_code import called

INPUT = "inputs"
_KEY = "data.source"


def is_function(source: str) -> bool:
    """Whether it names a function."""
    where, colon, name = source.rpartition(":")
    return bool(colon and where) and name.isidentifier()


def read_dataset(source: str, options: DataOptions) -> Found:
    """Pairs of inputs (a tensor, or a dict of tensors) and targets.

    Raises:
        InputError: The function or the data set raises, or items are no such pairs.
    """
    made = called(source, _KEY, options.arguments)
    parts = (
        {PARTS.get(str(name).lower()): each for name, each in made.items()}
        if isinstance(made, Mapping)
        else {}
    )
    if None in parts:
        raise InputError(
            f"{_KEY} {source!r} gives {', '.join(map(str, made))}; expected train, validation and test"
        )
    datasets = list(parts.values()) if parts else [made]
    for dataset in datasets:
        _check(dataset, source)

    items = _Items(source, tuple(datasets))
    example, targets = items[0]
    inputs = {
        name: ItemRows(items, name, np.asarray(value)) for name, value in _inputs_of(example, source).items()
    }
    n_before, numbers = 0, {}
    for part, dataset in parts.items():
        numbers[part] = np.arange(n_before, n_before + len(dataset))
        n_before += len(dataset)

    names = getattr(datasets[0], "classes", ())
    named = tuple(map(str, names)) if isinstance(names, Sequence) and not isinstance(names, str) else ()
    known: dict[Part, Index] = {part: rows for part, rows in numbers.items() if part is not None}
    return Found(Split(inputs, _targets(items, datasets, targets)), named, known)


@dataclass(frozen=True)
class _Items:
    """The items of several data sets, one after the other."""

    source: str
    datasets: tuple[Any, ...]

    def __len__(self) -> int:
        return sum(map(len, self.datasets))

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        place, left = 0, number
        while left >= len(self.datasets[place]):
            left -= len(self.datasets[place])
            place += 1
        try:
            item = self.datasets[place][left]
        except Exception as error:  # whatever the user's code raises
            raise InputError(
                f"{_KEY} {self.source!r}: item {left} raised {type(error).__name__}: {error}"
            ) from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InputError(
                f"{_KEY} {self.source!r}: item {left} is a {type(item).__name__}; expected a pair of inputs and targets"
            )
        return item[0], item[1]


class ItemRows:
    """One input of every item, asked for when it is needed.

    Args:
        items: Pairs of inputs and targets.
        name: Of the input.
        example: The first one.
    """

    def __init__(self, items: _Items, name: str, example: Array) -> None:
        self._items, self._name = items, name
        self.shape, self.dtype = (len(items), *example.shape), example.dtype

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: slice | Index) -> Array:
        numbers = np.arange(len(self))[index]
        rows = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for place, number in enumerate(numbers):
            value = np.asarray(_inputs_of(self._items[int(number)][0], self._items.source)[self._name])
            if value.shape != self.shape[1:]:
                raise InputError(
                    f"{_KEY} {self._items.source!r}: item {number} has shape {value.shape}, the first one "
                    f"{self.shape[1:]}; expected one shape"
                )
            rows[place] = value
        return rows


def _check(dataset: Any, source: str) -> None:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise InputError(
            f"{_KEY} {source!r} gives a {type(dataset).__name__}; expected a torch.utils.data.Dataset with a length "
            "and items, or one for train, validation and test"
        )
    if not len(dataset):
        raise InputError(f"{_KEY} {source!r} gives an empty data set")


def _inputs_of(value: Any, source: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(name): part for name, part in value.items()}
    if isinstance(value, tuple | list):
        raise InputError(
            f"{_KEY} {source!r}: inputs are a {type(value).__name__}; expected a tensor, or a dict of tensors by name"
        )
    return {INPUT: value}


def _targets(items: _Items, datasets: Sequence[Any], example: Any) -> dict[str, Array]:
    """Of every item; as a whole where the data sets keep them so, as torchvision's do."""
    kept = [getattr(dataset, "targets", None) for dataset in datasets]
    if not isinstance(example, Mapping) and all(
        k is not None and len(k) == len(d) for k, d in zip(kept, datasets, strict=True)
    ):
        return {LABELS: np.concatenate([np.asarray(k) for k in kept])}

    found = [items[number][1] for number in range(len(items))]
    if isinstance(example, Mapping):
        return {str(name): np.stack([np.asarray(target[name]) for target in found]) for name in example}
    return {LABELS: np.stack([np.asarray(target) for target in found])}
