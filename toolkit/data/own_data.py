"""Data of the user's own: read, checked, split, normalised, and kept in memory where they fit."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from modelpress.export.errors import InputError
from modelpress.toolkit.data.data_set import DataSet, Split, unit_of
from modelpress.toolkit.data.options import DataOptions, NormalisationOptions, TaskOptions
from modelpress.toolkit.data.rows import CastRows, Rows, chosen, in_memory, row_blocks
from modelpress.toolkit.data.sources.found import Found, Part
from modelpress.toolkit.data.sources.kinds import read_source
from modelpress.toolkit.data.splitting import set_apart
from modelpress.toolkit.data.tasks import checked_targets

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_STATISTICS_OF = 10_000  # training examples; more change the fourth digit
SPLIT_KEYS = ("test", "validation", "stratified", "split_seed")
DESCRIBED = (*SPLIT_KEYS, "resize", "colour")
Parts = dict[Part, Split]


def load_own(
    options: DataOptions, task: TaskOptions, *, whole: bool = False, measured: bool = True
) -> DataSet:
    """The examples of `options.source`, split.

    Args:
        options: Which, and how they are split and normalised.
        task: What the targets must be like.
        whole: Where neither source nor options name a test part, all examples are test examples.
        measured: Whether mean and deviation are measured on the training examples, where the options ask for it.

    Raises:
        InputError: The data cannot be read, or are not as described.
    """
    assert options.source is not None
    found = read_source(options.source, options)
    named = found.class_names
    examples = _checked(found, task, options.source, n_classes=len(named))
    parts = _parts(examples, found, options, task, whole=whole)
    if not len(parts["test"]) and not len(parts["train"]):
        raise InputError(f"{options.source} holds no examples")

    limit = options.memory << 20
    total = sum(split.n_bytes for split in parts.values())
    notes = list(found.notes)
    if total <= limit:
        parts = {part: _held(split) for part, split in parts.items()}
    else:
        notes.append(
            f"{options.source}: {total / 2**20:,.0f} MiB of examples, {options.memory:,} MiB may be in memory "
            "(data.memory): they are read from the disk in every epoch"
        )

    mean, std = _normalisation(parts, options, measured=measured)
    pixels = examples.first.dtype == np.uint8
    augment = options.augment if options.augment is not None else (("crop",) if pixels else ())
    return DataSet(
        name=name_of(options.source),
        class_names=named,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        mean=mean,
        std=std,
        mirrored="flip" in augment,
        augment=augment,
        memory=limit,
        task=task,
        description=_description(options, task),
        notes=tuple(notes),
    )


def name_of(source: str) -> str:
    """What a data set of the user's own is called: nothing of the folders of a machine.

    Example:
        >>> name_of("/home/me/flowers/"), name_of("data/table.npz"), name_of("sets.py:birds")
        ('flowers', 'table', 'sets:birds')
    """
    where, colon, function = source.rpartition(":")
    path = Path(where or source)
    stem = path.stem if path.suffix and not path.is_dir() else path.absolute().name
    return f"{stem}:{function}" if colon and where else stem


def _description(options: DataOptions, task: TaskOptions) -> dict[str, object]:
    """What gives the same splits from the same source again."""
    values = options.model_dump(mode="json")
    facts = {
        key: Path(value).name if isinstance(value, str) and key in ("test", "validation") else value
        for key, value in values.items()
        if key in DESCRIBED
    }
    return {**facts, "task": task.kind}


def _checked(found: Found, task: TaskOptions, where: str, *, n_classes: int) -> Split:
    """Inputs and targets in the types that networks and losses take.

    Raises:
        InputError: They hold NaN, or are of a kind that no network takes.
    """
    inputs = {name: _of_network(rows, f"{where}: {name}") for name, rows in found.examples.inputs.items()}
    for name, rows in inputs.items():
        if rows.dtype.kind == "f":
            _check_finite(rows, f"{where}: {name}")
    return Split(inputs, checked_targets(found.examples.targets, task, n_classes=n_classes, where=where))


def _of_network(rows: Rows, where: str) -> Rows:
    """Pixels stay what they are, other whole numbers become int64, all others float32."""
    if rows.dtype.kind not in "iubf":
        raise InputError(f"{where}: has type {rows.dtype}; expected numbers")
    if len(rows.shape) < 2:
        raise InputError(
            f"{where}: has shape {rows.shape}; expected examples along the first axis, values along others"
        )
    if rows.dtype == np.uint8 and len(rows.shape) == 4:
        return rows
    wanted = np.dtype(np.float32 if rows.dtype.kind == "f" else np.int64)
    if rows.dtype == wanted:
        return rows
    if isinstance(rows, np.ndarray) and not isinstance(rows, np.memmap):
        return rows.astype(wanted)
    return CastRows(rows, wanted)


def _check_finite(rows: Rows, where: str) -> None:
    for part in row_blocks(rows):
        good = np.isfinite(rows[part]).reshape(part.stop - part.start, -1).all(axis=1)
        if not good.all():
            raise InputError(f"{where} of example {part.start + int(np.argmin(good))} is NaN or infinite")


def _parts(examples: Split, found: Found, options: DataOptions, task: TaskOptions, *, whole: bool) -> Parts:
    """Train, validation and test; other sources before what the source says, that before fractions."""
    parts: Parts = {}
    rest = np.arange(len(examples))
    asked: tuple[tuple[Part, float | str], ...] = (("test", options.test), ("validation", options.validation))
    for part, where in asked:
        if isinstance(where, str):
            parts[part] = _elsewhere(where, found, options, task)
        elif part in found.parts:
            parts[part] = examples.take(found.parts[part])
    if whole and "test" not in parts:
        return {"train": examples.take(rest[:0]), "validation": examples.take(rest[:0]), "test": examples}

    rest = found.parts.get("train", np.setdiff1d(rest, np.concatenate([rest[:0], *found.parts.values()])))
    for part, share in asked:
        if part not in parts:
            assert isinstance(share, float | int)
            train = examples.take(rest)
            by_class = task.kind == "classification" and task.metric is None and options.stratified
            labels = train.labels if by_class and len(train) else None
            stay, apart = set_apart(labels, len(train), share, seed=options.split_seed)
            parts[part] = train.take(apart)
            rest = rest[stay]
    return {**parts, "train": examples.take(rest)}


def _elsewhere(source: str, found: Found, options: DataOptions, task: TaskOptions) -> Split:
    """All examples of another source, whose classes are those of the first."""
    other = read_source(source, options)
    if found.class_names and other.class_names:
        unknown = [name for name in other.class_names if name not in found.class_names]
        if unknown:
            raise InputError(
                f"{source}: class {unknown[0]!r} is none of the training examples' ({', '.join(found.class_names[:8])})"
            )
        place = np.array([found.class_names.index(name) for name in other.class_names])
        targets = {name: place[labels] for name, labels in other.examples.targets.items()}
        other = replace(other, examples=Split(other.examples.inputs, targets))

    split = _checked(other, task, source, n_classes=len(found.class_names))
    for (name, rows), (other_name, other_rows) in zip(
        found.examples.inputs.items(), split.inputs.items(), strict=False
    ):
        if (name, rows.shape[1:]) != (other_name, other_rows.shape[1:]):
            raise InputError(
                f"{source}: its input {other_name} has shape {other_rows.shape[1:]}; that of the training examples is "
                f"{name}, {rows.shape[1:]}"
            )
    return split


def _held(split: Split) -> Split:
    """In memory, whatever was on the disk."""
    return Split({name: in_memory(rows) for name, rows in split.inputs.items()}, split.targets)


def _normalisation(
    parts: Mapping[Part, Split], options: DataOptions, *, measured: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the first input; empty where it is taken as it is, or where they are not known.

    Raises:
        InputError: There are others than channels, or what is normalised is no number that can be.
    """
    rows = next(parts[part] for part in ("train", "test") if len(parts[part])).first
    channels, pixels = rows.shape[1], rows.dtype == np.uint8
    how = options.normalise
    if isinstance(how, NormalisationOptions):
        stated = how.mean, how.std
    elif how == "imagenet":
        stated = IMAGENET
    elif how == "none" or (how == "auto" and not pixels):
        return ((0.0,) * channels, (1.0,) * channels) if pixels else ((), ())
    elif not measured or not len(parts["train"]):
        return (), ()
    else:
        stated = _measured(rows)

    if rows.dtype.kind == "i":
        raise InputError(
            "data.normalise: whole numbers such as tokens are taken as they are; leave it at none"
        )
    if len(stated[0]) == 1 and channels > 1:
        stated = stated[0] * channels, stated[1] * channels
    if len(stated[0]) != channels:
        raise InputError(
            f"data.normalise has {len(stated[0])} values of mean; the data have {channels} channels"
        )
    return stated


def _measured(rows: Rows) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Over evenly chosen examples, in four digits of a pixel or seven of other values."""
    few = np.unique(np.linspace(0, len(rows) - 1, min(_STATISTICS_OF, len(rows))).astype(np.int64))
    some = chosen(rows, few)
    total, squares, count = 0.0, 0.0, 0
    for part in row_blocks(some):
        values = some[part].astype(np.float64) / unit_of(rows.dtype)
        axes = (0, *range(2, values.ndim))
        total, squares = total + values.sum(axis=axes), squares + np.square(values).sum(axis=axes)
        count += values.size // values.shape[1]

    mean = np.asarray(total / count)
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    deviation = np.where(deviation > 1e-12, deviation, 1.0)  # of a channel that never changes
    if rows.dtype == np.uint8:
        return tuple(np.round(mean, 4).tolist()), tuple(np.maximum(np.round(deviation, 4), 1e-4).tolist())
    return tuple(map(float, mean.astype(np.float32))), tuple(map(float, deviation.astype(np.float32)))
