"""A folder of images, a class per folder; or a CSV file of paths and labels."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelpress.export.errors import InputError
from modelpress.export.files.inputs import read_input
from modelpress.export.handoff.bundle_files.image_data import (
    LABEL_COLUMNS,
    PARTS,
    PATH_COLUMNS,
    SPLIT_COLUMNS,
    SUFFIXES,
    class_names,
)
from modelpress.toolkit.data.data_set import Split
from modelpress.toolkit.data.options import DataOptions
from modelpress.toolkit.data.rows import Array
from modelpress.toolkit.data.sources.decoded import DecodedImages, Unreadable, opened
from modelpress.toolkit.data.sources.found import Found, parts_of

_NAMED = 3  # files in a message
MAX_CSV_BYTES = 256 << 20


@dataclass(frozen=True)
class _Listed:
    """Files with what is said of each."""

    where: str
    paths: list[Path]
    labels: list[str]
    parts: list[str]

    def without(self, bad: set[int]) -> "_Listed":
        kept = [k for k in range(len(self.paths)) if k not in bad]
        return _Listed(
            self.where,
            [self.paths[k] for k in kept],
            [self.labels[k] for k in kept],
            [self.parts[k] for k in kept] if self.parts else [],
        )


def is_folder(source: str) -> bool:
    """Whether the source is a folder."""
    return Path(source).is_dir()


def is_table(source: str) -> bool:
    """Whether it is a CSV file."""
    return source.lower().endswith(".csv")


def read_folder(source: str, options: DataOptions) -> Found:
    """``CLASS/image.png``, or ``train/CLASS/image.png`` with ``test/`` and ``validation/`` beside it.

    Raises:
        InputError: It holds no images, or not a class per folder; too many are unreadable; sizes differ.
    """
    root = Path(source)
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    split = bool(folders) and all(folder.name.lower() in PARTS for folder in folders)
    listed = _Listed(source, [], [], [])

    for part in folders if split else [root]:
        for folder in sorted(
            path for path in part.iterdir() if path.is_dir() and not path.name.startswith(".")
        ):
            for path in sorted(_images_below(folder)):
                listed.paths.append(path)
                listed.labels.append(folder.name)
                if split:
                    listed.parts.append(part.name)

    if not listed.paths:
        loose = sum(1 for _ in _images_below(root))
        there = f"{loose} images, none of them in the folder of a class" if loose else "no images"
        raise InputError(
            f"{source} holds {there}; expected a folder per class, as in {source.rstrip('/')}/cat/1.png, or a CSV file "
            "of paths and labels"
        )
    return _found(listed, options)


def read_table(source: str, options: DataOptions) -> Found:
    """Columns ``path`` and ``label``, and maybe ``split``; paths are relative to the file.

    Raises:
        InputError: Columns or files are missing; else as `read_folder`.
    """
    rows = list(_rows(source))
    names = {name.strip().lower(): k for k, name in enumerate(rows[0])} if rows else {}
    path, label, split = (
        next((names[name] for name in known if name in names), None)
        for known in (PATH_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS)
    )
    if path is None or label is None:
        raise InputError(
            f"{source}: its columns are {', '.join(names) or 'none'}; expected path and label, and maybe split, in the "
            "first line"
        )

    short = next((k for k, row in enumerate(rows[1:], 2) if len(row) < len(names)), None)
    if short is not None:
        raise InputError(f"{source}: line {short} has {len(rows[short - 1])} values; expected {len(names)}")
    folder = Path(source).parent
    listed = _Listed(
        source,
        [folder / row[path].strip() for row in rows[1:]],
        [row[label].strip() for row in rows[1:]],
        [] if split is None else [row[split] for row in rows[1:]],
    )
    missing = [p for p in listed.paths if not p.is_file()]
    if missing:
        raise InputError(
            f"{source}: {len(missing)} of {len(listed.paths)} files are missing: {_named(missing)}; paths are relative "
            f"to {folder}"
        )
    if not listed.paths:
        raise InputError(f"{source}: names no files; expected a line for each image")
    return _found(listed, options)


def _rows(source: str) -> Iterator[list[str]]:
    try:
        text = read_input(Path(source), most=MAX_CSV_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: is no CSV file in UTF-8: {error}") from error
    try:
        yield from (row for row in csv.reader(text.splitlines()) if row)
    except csv.Error as error:
        raise InputError(f"{source}: is no CSV file: {error}") from error


def _images_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _found(listed: _Listed, options: DataOptions) -> Found:
    """Every file looked at once: what cannot be decoded is left out and named, up to the share that may be."""
    sizes, unreadable = _sizes(listed.paths, check=options.unreadable < 1)
    notes = []
    if unreadable:
        share = len(unreadable) / len(listed.paths)
        told = f"{listed.where}: {len(unreadable)} of {len(listed.paths)} images are unreadable: " + _named(
            [listed.paths[k] for k in unreadable]
        )
        if share > options.unreadable:
            first = next(iter(unreadable.values()))
            raise InputError(
                f"{told} ({first}); up to {options.unreadable:g} of them may be (data.unreadable)"
            )
        notes.append(f"{told}; they are left out")
        listed = listed.without(set(unreadable))
        sizes = [size for k, size in enumerate(sizes) if k not in unreadable]

    size = options.resize or _common_size(listed, sizes)
    names, labels = _numbered(listed.labels)
    return Found(
        Split.of(DecodedImages(listed.paths, size, options.colour), labels),
        names,
        parts_of(np.array(listed.parts), listed.where) if listed.parts else {},
        tuple(notes),
    )


def _sizes(paths: Sequence[Path], *, check: bool) -> tuple[list[tuple[int, int]], dict[int, str]]:
    """Height and width of every file, and why it cannot be decoded where it cannot."""
    from concurrent.futures import ThreadPoolExecutor

    from modelpress.toolkit.data.sources.decoded import n_workers

    def size_of(path: Path) -> tuple[int, int] | str:
        try:
            image = opened(path)
        except Unreadable as error:
            return str(error)
        return image.height, image.width

    with ThreadPoolExecutor(n_workers()) as pool:
        found = list(pool.map(size_of, paths))
    bad = {k: why for k, why in enumerate(found) if isinstance(why, str)}
    return [(0, 0) if isinstance(size, str) else size for size in found], bad


def _common_size(listed: _Listed, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The size of all images.

    Raises:
        InputError: They differ.
    """
    kinds = sorted(set(sizes))
    if len(kinds) > 1:
        k = next(k for k, size in enumerate(sizes) if size != sizes[0])
        shown = " and ".join(f"{listed.paths[j].name} {sizes[j][0]}x{sizes[j][1]}" for j in (0, k))
        raise InputError(
            f"{listed.where}: images have {len(kinds)} sizes (height x width): {shown}; give one, as in "
            "--set data.resize=[64,64]"
        )
    return kinds[0]


def _numbered(labels: Sequence[str]) -> tuple[tuple[str, ...], Array]:
    """Class names in order, numbers by their value, and the labels as indices."""
    names = class_names(labels)
    place = {name: k for k, name in enumerate(names)}
    return tuple(names), np.array([place[label] for label in labels], np.int64)


def _named(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(str(path) for path in paths[:_NAMED]) + more
