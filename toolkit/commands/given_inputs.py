"""The options by which a user says what a model is fed with, shared by `bench`, `bundle` and `verify`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpress.export.errors import CommandLineError

if TYPE_CHECKING:
    from modelpress.benchmarks.subjects.given import Given

_PANEL = "Inputs"

InputFiles = Annotated[
    list[str],
    typer.Option(
        "--input",
        metavar="NAME=FILE.npy|FILE.npz|FOLDER",
        help="What the model is fed with: an array for the input of this name; an .npz file with an array for each "
        "input; a folder of those, one for each call, or of an .npy file called like each input. Repeatable. What is "
        "not given is made up from the declared types and shapes.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
InputShapes = Annotated[
    list[str],
    typer.Option(
        "--shape",
        metavar="NAME=N,N,...",
        help="Shape of an input that is made up, as in --shape audio=1,80,200. Repeatable.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]


def given_inputs(texts: Iterable[str], shapes: Iterable[str]) -> "Given":
    """What both options say.

    Raises:
        CommandLineError: One is written otherwise, or a name is given twice.
        InputError: A file or folder cannot be read.
    """
    from modelpress.benchmarks.subjects.given import read_given

    named, sources = parse_inputs(texts)
    return read_given(named, sources, parse_shapes(shapes))


def parse_inputs(texts: Iterable[str]) -> tuple[dict[str, Path], list[Path]]:
    """Files by the names of inputs, and files and folders of several; a name may hold colons and slashes.

    Raises:
        CommandLineError: What is given is neither, or a name is given twice.

    Example:
        >>> named, sources = parse_inputs(["input_ids:0=ids.npy", "calls/1.npz"])
        >>> {name: path.name for name, path in named.items()}, [path.name for path in sources]
        ({'input_ids:0': 'ids.npy'}, ['1.npz'])
    """
    found: dict[str, Path] = {}
    sources = []
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals and (text.endswith(".npz") or Path(text).is_dir()):
            sources.append(Path(text))
            continue
        if not (name and equals and file):
            raise CommandLineError(
                f"--input {text!r}: expected NAME=FILE.npy, as in --input images=batch.npy, an .npz file, or a folder"
            )
        if name in found:
            raise CommandLineError(f"--input {name}=… is given twice; give one array for each input")
        found[name] = Path(file)
    return found, sources


def parse_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by the names of inputs.

    Raises:
        CommandLineError: One is no list of lengths of 1 or more, or a name is given twice.

    Example:
        >>> parse_shapes(["audio=1,80,200", "scale="])
        {'audio': (1, 80, 200), 'scale': ()}
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, lengths = text.rpartition("=")
        axes = lengths.split(",") if lengths else []
        if not (name and equals and all(axis.isascii() and axis.isdecimal() and int(axis) for axis in axes)):
            raise CommandLineError(f"--shape {text!r}: expected NAME=N,N,..., as in --shape audio=1,80,200")
        if name in found:
            raise CommandLineError(f"--shape {name}=… is given twice; give one shape for each input")
        found[name] = tuple(map(int, axes))
    return found
