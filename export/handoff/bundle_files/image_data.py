"""Test images in files, read as they were when the accuracy of the model was measured; verify.py uses it.

A folder with a folder per class (or with ``test/`` and others, each with a folder per class), or a CSV file of paths
and labels. Which of them are test images, if the source does not say so, is in the metadata of the model. Needs numpy
and pillow, and run.py beside it.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

PARTS: dict[str, Literal["train", "validation", "test"]] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
SUFFIXES = (".bmp", ".gif", ".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".pnm", ".tif", ".tiff", ".webp")
PATH_COLUMNS = ("path", "file", "filename", "image")
LABEL_COLUMNS = ("label", "class", "target")
SPLIT_COLUMNS = ("split", "part")


class Problem(Exception):  # noqa: N818 - reads as what it is
    """The images cannot be had, in one line."""


def is_source(path: Path) -> bool:
    """Whether such images lie there."""
    return path.is_dir() or path.suffix.lower() == ".csv"


def read(source: Path, manifest: dict[str, Any]) -> tuple[Any, Any]:
    """Test images, uint8 ``(n, C, H, W)``, and their labels, int64."""
    sys.dont_write_bytecode = True  # the files of a bundle are those of its manifest
    runner = importlib.import_module("run")
    try:
        runner.needed("PIL.Image", "pillow")
        runner.image_size(manifest["contract"])
        numpy = runner.needed("numpy")
    except runner.Problem as problem:
        raise Problem(str(problem)) from problem

    kept, images = [], []
    for file, label, part in listed(source):
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # about every image that is resized
                pixels = runner.pixels_of_image(file, manifest["contract"])
        except (runner.Problem, OSError):  # unreadable ones were left out, too
            continue
        kept.append((label, part))
        images.append(pixels.transpose(2, 0, 1))
    if not images:
        raise Problem(f"{source} holds no images that can be read")

    names = class_names(label for label, _ in kept)
    labels = numpy.array([names.index(label) for label, _ in kept], numpy.int64)
    rows = test_rows(labels, [part for _, part in kept], told_of(source, manifest))
    return numpy.stack(images)[rows], labels[rows]


def class_names(labels: Iterable[str]) -> list[str]:
    """In order: numbers by their value, else as text."""
    names = sorted(set(labels))
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    return names


def listed(source: Path) -> list[tuple[Path, str, str]]:
    """All files in order: path, class, and part or nothing."""
    return listed_in_table(source) if source.is_file() else listed_in_folder(source)


def listed_in_folder(source: Path) -> list[tuple[Path, str, str]]:
    """``CLASS/image.png``, or ``test/CLASS/image.png``."""
    folders = subfolders(source)
    split = bool(folders) and all(folder.name.lower() in PARTS for folder in folders)
    return [
        (path, folder.name, PARTS[part.name.lower()] if split else "")
        for part in (folders if split else [source])
        for folder in subfolders(part)
        for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    ]


def subfolders(folder: Path) -> list[Path]:
    """Those that are not hidden."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def listed_in_table(source: Path) -> list[tuple[Path, str, str]]:
    """Columns ``path`` and ``label``, and maybe ``split``."""
    rows = [row for row in csv.reader(source.read_text(encoding="utf-8-sig").splitlines()) if row]
    names = {name.strip().lower(): k for k, name in enumerate(rows[0])} if rows else {}
    path, label, split = (
        next((names[name] for name in known if name in names), None)
        for known in (PATH_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS)
    )
    if path is None or label is None:
        raise Problem(f"{source} has no columns path and label")
    try:
        return [
            (
                source.parent / row[path].strip(),
                row[label].strip(),
                "" if split is None else PARTS[row[split].strip().lower()],
            )
            for row in rows[1:]
        ]
    except (IndexError, KeyError) as error:
        raise Problem(f"{source}: a line is short, or names an unknown split: {error}") from error


def told_of(source: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """How the model says that its data were split; nothing where they were other data."""
    facts = manifest["metadata"]
    name = source.stem if source.suffix and source.is_file() else source.absolute().name
    told = json.loads(facts.get("modelpress.data", "{}"))
    return told if name == facts.get("modelpress.dataset") and isinstance(told.get("test"), float) else {}


def test_rows(labels: Any, parts: list[str], told: dict[str, Any]) -> Any:
    """Numbers of the test images: those called so, else the fraction set apart by the seed, else all of them."""
    numpy = importlib.import_module("numpy")
    named = numpy.array(parts)
    if (named == "test").any():
        return numpy.flatnonzero(named == "test")
    if not told:
        return numpy.arange(len(labels))

    rows = numpy.flatnonzero(named == ("train" if (named == "train").any() else ""))
    order = numpy.random.default_rng(told["split_seed"]).permutation(len(rows))
    if not told["stratified"]:
        return numpy.sort(rows[order[: round(told["test"] * len(rows))]])
    apart = []
    for label in numpy.unique(labels[rows]):
        members = order[labels[rows][order] == label]
        share = min(max(round(told["test"] * len(members)), 1), len(members) - 1)
        apart.append(members[:share])
    return numpy.sort(rows[numpy.concatenate(apart)])
