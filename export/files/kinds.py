"""What a file is, by its first bytes, and how to tell a user that it is the wrong one."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

from modelpress.export.errors import CommandLineError, InputError

PRESS_MAGIC = b"\x89PRESS\r\n"  # FORMAT.md, "File"
_HEAD_BYTES = 512  # enough for every signature, and for the first keys of our JSON files


class Kind(StrEnum):
    """What a path leads to, in words that follow "is"."""

    MISSING = "not there"
    UNREADABLE = "not readable"
    FOLDER = "a folder"
    EMPTY = "an empty file"
    PRESS = "a .press artifact"
    ONNX = "an ONNX model"
    SAFETENSORS = "a safetensors file"
    TORCH = "a PyTorch checkpoint"
    RESULTS = "a results file (results.json)"
    MANIFEST = "the manifest of a run (manifest.json)"
    BUNDLE_MANIFEST = "the manifest of a bundle (manifest.json)"
    JSON = "a JSON file"
    YAML = "a YAML file"
    NPZ = "an archive of NumPy arrays (.npz)"
    NPY = "a NumPy array (.npy)"
    ZIP = "a .zip archive"
    PNG = "a PNG image"
    PDF = "a PDF document"
    TEXT = "a text file"
    UNKNOWN = "a file of an unknown kind"


class Wanted(StrEnum):
    """What a command or function expected, in words that follow what the file is."""

    PRESS = "expected a .press artifact"
    MODEL = "neither a .press artifact nor an ONNX model"
    PACKABLE = "expected an ONNX model (.onnx) or a network file (.safetensors, .pt)"
    NETWORK = "expected a network file (.safetensors) or a PyTorch state dict (.pt)"
    RECIPE = "expected a recipe (YAML)"
    RESULTS = "expected results.json of `modelpress bench` or `run`"


# What each reader takes. A .zip may be a state dict whose members stand in another order, a recipe may be written as
# JSON (which is YAML) or be empty, and results may be of a writer that orders its keys otherwise.
_TAKEN: Mapping[Wanted, frozenset[Kind]] = {
    Wanted.PRESS: frozenset({Kind.PRESS}),
    Wanted.MODEL: frozenset({Kind.PRESS, Kind.ONNX}),
    Wanted.PACKABLE: frozenset({Kind.ONNX, Kind.SAFETENSORS, Kind.TORCH, Kind.ZIP}),
    Wanted.NETWORK: frozenset({Kind.SAFETENSORS, Kind.TORCH, Kind.ZIP}),
    Wanted.RECIPE: frozenset({Kind.YAML, Kind.JSON, Kind.EMPTY}),
    Wanted.RESULTS: frozenset({Kind.RESULTS, Kind.JSON}),
}
# Of these a reader can say more than the first bytes do.
_UNDECIDED = frozenset({Kind.MISSING, Kind.UNREADABLE, Kind.TEXT, Kind.UNKNOWN})

# Where a signature stands and what it means; zip archives and JSON are looked into further.
_SIGNATURES = (
    (0, PRESS_MAGIC, Kind.PRESS),
    (0, b"\x89PNG\r\n\x1a\n", Kind.PNG),
    (0, b"%PDF-", Kind.PDF),
    (0, b"\x93NUMPY", Kind.NPY),
    (0, b"PK\x03\x04", Kind.ZIP),
    (0, b"PK\x05\x06", Kind.ZIP),  # an empty one
    (0, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9", Kind.TORCH),  # the magic number of torch.save before 1.6, pickled
)
_ZIP_NAME_AT = 30  # of the first member, in its local header
_IR_VERSION_TAG = 0x08  # protobuf: field 1, a number; the first one of every ONNX writer
_AFTER_IR_VERSION = b"\x12\x1a\x22\x28\x32\x3a\x42"  # tags of fields 2 to 8 of ModelProto

# (what it is, what was wanted) -> the way out; {path} and {stem} are filled in
_REMEDIES: Mapping[tuple[Kind, Wanted], str] = {
    (Kind.ONNX, Wanted.PRESS): "make one with `modelpress pack {path} -o {stem}.press`",
    (Kind.SAFETENSORS, Wanted.PRESS): "make one with `modelpress pack {path} -o {stem}.press`",
    (Kind.TORCH, Wanted.PRESS): "make one with `modelpress pack {path} -o {stem}.press`",
    (
        Kind.ZIP,
        Wanted.PRESS,
    ): "a bundle is checked with `modelpress verify {path}`; its artifact is model.press in it",
    (Kind.RESULTS, Wanted.PRESS): "draw it with `modelpress report {path}`",
    (Kind.SAFETENSORS, Wanted.MODEL): "make one with `modelpress pack {path} -o {stem}.press`",
    (Kind.TORCH, Wanted.MODEL): "make one with `modelpress pack {path} -o {stem}.press`",
    (Kind.RESULTS, Wanted.MODEL): "draw it with `modelpress report {path}`",
    (Kind.PRESS, Wanted.PACKABLE): "it is packed already; `modelpress inspect {path}` shows it, "
    "`modelpress onnx {path}` writes an ONNX model of it",
    (Kind.PRESS, Wanted.NETWORK): "a packed network is not trained further; "
    "give the network file that it was packed from",
    (Kind.ONNX, Wanted.NETWORK): "an ONNX model is not trained here; "
    "quantize and pack it in one step with `modelpress pack {path}`",
    (Kind.MANIFEST, Wanted.RECIPE): 'save what it holds under "recipe" as a file of its own, and give that',
    (Kind.RESULTS, Wanted.RECIPE): 'save what it holds under "recipe" as a file of its own, and give that',
    (Kind.PRESS, Wanted.RESULTS): "measure it with `modelpress bench {path} -o results.json`",
    (Kind.ONNX, Wanted.RESULTS): "measure it with `modelpress bench {path} -o results.json`",
    (Kind.MANIFEST, Wanted.RESULTS): "the results of that run are in results.json beside it",
}
# which files a folder is searched for, so that the one that was meant can be named
_ENDINGS: Mapping[Wanted, tuple[str, ...]] = {
    Wanted.PRESS: (".press",),
    Wanted.MODEL: (".press", ".onnx"),
    Wanted.PACKABLE: (".onnx", ".safetensors", ".pt", ".pth"),
    Wanted.NETWORK: (".safetensors", ".pt", ".pth"),
    Wanted.RECIPE: (".yaml", ".yml"),
    Wanted.RESULTS: ("results.json",),
}


def kind_of(path: Path) -> Kind:
    """What a path leads to; never raises.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "model.onnx"
        ...     _ = path.write_bytes(b"%PDF-1.7")
        ...     kind_of(path).value, kind_of(path.parent).value
        ('a PDF document', 'a folder')
    """
    try:
        if path.is_dir():
            return Kind.FOLDER
        if path.exists() and not path.is_file():
            return Kind.UNREADABLE  # opening a pipe would wait for its writer

        # the unbuffered read takes no more than the first bytes, of whatever size the file is
        with path.open("rb", buffering=0) as file:
            head, size = file.read(_HEAD_BYTES), path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return Kind.MISSING
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return Kind.UNREADABLE
    return _kind_of_bytes(head, path.suffix.lower(), size)


def _kind_of_bytes(head: bytes, suffix: str, size: int) -> Kind:
    if not head:
        return Kind.EMPTY
    if head.lstrip()[:1] in (b"{", b"["):
        return _kind_of_json(head)
    for start, signature, kind in _SIGNATURES:
        if head[start : start + len(signature)] == signature:
            return _kind_of_zip(head) if kind is Kind.ZIP else kind
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return Kind.SAFETENSORS  # after the length of the header: what looks like text is no such length
    if head[0] == _IR_VERSION_TAG and len(head) > 2 and head[1] < 0x80 and head[2] in _AFTER_IR_VERSION:
        return Kind.ONNX

    text = Kind.YAML if suffix in (".yaml", ".yml") else Kind.TEXT
    return text if _is_text(head) else Kind.UNKNOWN


def _kind_of_zip(head: bytes) -> Kind:
    """By the name of the first member."""
    length = int.from_bytes(head[26:28], "little")
    name = head[_ZIP_NAME_AT : _ZIP_NAME_AT + length]
    if name.endswith(
        (b"/data.pkl", b"/.format_version")
    ):  # torch.save; which comes first depends on its version
        return Kind.TORCH
    return Kind.NPZ if name.endswith(b".npy") else Kind.ZIP


def _kind_of_json(head: bytes) -> Kind:
    """By the first keys, in the order in which we write them."""
    keys = head.partition(b'"schema_version"')[2][:80]
    for key, kind in (
        (b'"modelpress bundle"', Kind.BUNDLE_MANIFEST),
        (b'"modelpress"', Kind.MANIFEST),
        (b'"environment"', Kind.RESULTS),
    ):
        if key in keys:
            return kind
    return Kind.JSON


def _is_text(head: bytes) -> bool:
    """Whether the bytes decode as UTF-8, but for a character cut off at their end, and hold no control characters."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if len(head) < _HEAD_BYTES or error.start < len(head) - 3:
            return False
        text = head[: error.start].decode()
    return all(letter.isprintable() or letter.isspace() for letter in text)


def check_kind(path: Path, wanted: Wanted) -> None:
    """Refuse a file that is certainly another one than expected.

    What the first bytes do not tell is left to the reader, as are files that are missing.

    Raises:
        InputError: It is of another kind; the message says of which, and what to do.
    """
    kind = kind_of(path)
    if kind not in _UNDECIDED and kind not in _TAKEN[wanted]:
        raise InputError(wrong_kind(path, wanted))


def wrong_kind(path: Path, wanted: Wanted) -> str:
    """The text of an error: what a file is, what was expected, and the way out where there is one.

    Example:
        >>> wrong_kind(Path("/"), Wanted.RESULTS)
        '/: is a folder, expected results.json of `modelpress bench` or `run`'
    """
    kind = kind_of(path)
    if kind is Kind.FOLDER:
        remedy = meant_in(path, wanted)
    else:
        remedy = _REMEDIES.get((kind, wanted), "").format(path=path, stem=path.stem)
    return f"{path}: is {kind}, {wanted}" + f": {remedy}" * bool(remedy)


def meant_in(folder: Path, wanted: Wanted) -> str:
    """A question that names the first file of a folder with the right ending; empty where there is none."""
    try:
        names = sorted(name for entry in folder.iterdir() if (name := entry.name).endswith(_ENDINGS[wanted]))
    except OSError:
        return ""
    return f"did you mean {folder / names[0]}?" if names else ""


def check_ending(path: Path, what: str, endings: Iterable[str]) -> None:
    """Refuse a name for a new file that ends otherwise than what it will hold.

    Args:
        path: Of the file to be written.
        what: It will hold, in words.
        endings: The suffixes that such a file may have.

    Raises:
        CommandLineError: It ends otherwise.

    Example:
        >>> check_ending(Path("a.md"), "a page", (".html", ".md"))
        >>> check_ending(Path("a.pdf"), "a page", (".html", ".md"))
        Traceback (most recent call last):
        modelpress.export.errors.CommandLineError: a.pdf: this will be a page; expected a name that ends in .html or .md
    """
    allowed = tuple(endings)
    if path.suffix.lower() not in allowed:
        raise CommandLineError(
            f"{path}: this will be {what}; expected a name that ends in {' or '.join(allowed)}"
        )
