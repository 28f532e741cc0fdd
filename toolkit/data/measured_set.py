"""The test examples that a finished model is measured on."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from modelpress.export.errors import InputError
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.data.options import DataOptions, TaskOptions
from modelpress.toolkit.data.own_data import DESCRIBED, SPLIT_KEYS, load_own, name_of
from modelpress.toolkit.data.registry import load_data_set

DATASET_METADATA, SPLITS_METADATA = "modelpress.dataset", "modelpress.data"
Sections = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class MeasuredSet:
    """Which data set, as far as the user said.

    Attributes:
        dataset: Its name; None: the one that the model's metadata name.
        data_dir: Its folder, or None.
        own: Of data of the user's own: the keys of the recipe's sections ``data`` and ``task`` that were given.
    """

    dataset: str | None = None
    data_dir: str | None = None
    own: Sections = field(default_factory=dict)

    @property
    def is_asked_for(self) -> bool:
        """Whether the user said anything; then nothing that goes wrong is passed over."""
        return self.dataset is not None or self.data_dir is not None or bool(self.own)

    @property
    def folders(self) -> list[Path]:
        """Paths that were given, which records do not name."""
        source = self.own.get("data", {}).get("source")
        return [Path(path) for path in (self.data_dir, source) if path is not None]

    def load(
        self,
        model: Path,
        metadata: Mapping[str, str],
        *,
        check: Callable[[DataSet], None],
        without: Callable[[str], None],
    ) -> DataSet | None:
        """Test examples; None where none were asked for and those of the model cannot be had or do not suit.

        Args:
            model: The file, for messages.
            metadata: Its ``metadata_props``, which name what it was trained on.
            check: Raises InputError where the examples do not suit.
            without: Told why there are none.

        Raises:
            InputError: Examples were asked for, and are missing, do not suit, or cannot be named.
        """
        if self.own:
            data = own_set(self.own, metadata)
            if not len(data.test):
                raise InputError(f"{data.name} holds no test examples; see data.test")
            check(data)
            return data

        name = self.dataset or metadata.get(DATASET_METADATA)
        if name is None and self.data_dir is not None:
            raise InputError(
                f"{model} does not say what it was trained on: name the data set (--dataset cifar10)"
            )
        if name is None or (name == "cifar10" and not self.is_asked_for):
            without("no data set given (--data, --dataset, --data-dir)")
            return None
        if self.dataset is None and SPLITS_METADATA in metadata:
            without(f"it was trained on {name}, data of somebody's own (--data)")
            return None

        try:
            images = load_data_set(name, folder=self.data_dir, test_only=True)
            if not len(images.test):
                raise InputError(f"the data set {images.name} holds no test images")
            check(images)
        except InputError as error:
            if self.is_asked_for:
                raise
            without(str(error))
            return None

        return images


def own_set(sections: Sections, metadata: Mapping[str, str]) -> DataSet:
    """Data of the user's own, split so that the test examples are those that a model was not trained on.

    What a model of this toolkit says of its data (how they were split and scaled) counts where the user does not say
    otherwise. Of a model from elsewhere, and of other data than it was trained on, all are test examples unless the
    source or the user names some.

    Raises:
        InputError: The data cannot be read, or are not as described.
    """
    told, task = _told(metadata), dict(sections.get("task", {}))
    given = dict(sections.get("data", {}))
    kind, fingerprint = told.pop("task", None), told.pop("fingerprint", None)
    if kind is not None and not task:
        task = {"kind": kind}
    source = given.get("source")
    if source is None:
        raise InputError("no data are named: give --data PATH")
    known = metadata.get(DATASET_METADATA) == name_of(str(source)) and isinstance(told.get("test"), float)
    if not known:
        told = {key: value for key, value in told.items() if key not in SPLIT_KEYS}

    options, chosen = sections_of({**told, **given}, task)
    data = load_own(options, chosen, whole=not known and "test" not in given, measured=False)
    return replace(data, notes=(*data.notes, *_other_examples(data, fingerprint))) if known else data


def _other_examples(data: DataSet, fingerprint: str | None) -> tuple[str, ...]:
    """Said where a model names test examples, and these are others."""
    if fingerprint is None or fingerprint == data.fingerprint():
        return ()
    return (f"{len(data.test):,} {data.noun} of {data.name} are not the test examples that the model names",)


def sections_of(data: Mapping[str, Any], task: Mapping[str, Any]) -> tuple[DataOptions, TaskOptions]:
    """The two sections, checked.

    Raises:
        InputError: A key is unknown or a value out of range.
    """
    try:
        return DataOptions.model_validate(data), TaskOptions.model_validate(task)
    except ValidationError as error:
        first = error.errors()[0]
        section = "task" if error.title == TaskOptions.__name__ else "data"
        where = ".".join(map(str, (section, *first["loc"])))
        raise InputError(f"{where}: {first['msg']}") from error


def _told(metadata: Mapping[str, str]) -> dict[str, Any]:
    text = metadata.get(SPLITS_METADATA)
    if text is None:
        return {}
    try:
        told = dict(json.loads(text))
        # a file may say how examples were split and scaled, never name a source: a source may be code
        return {
            key: told[key] for key in (*DESCRIBED, "task", "fingerprint") if _is_plain(key, told.get(key))
        }
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"the model's metadata {SPLITS_METADATA} are damaged: {text[:100]!r}") from error


def _is_plain(key: str, value: object) -> bool:
    return value is not None and not (key in ("test", "validation") and isinstance(value, str))
