"""The hand-off folder: written whole or not at all; a folder or `.zip` from anywhere is read without trust.

    model.press  model.onnx  manifest.json  SHA256SUMS  MODEL_CARD.md  run.py  verify.py  requirements.txt
    sbom.cdx.json  samples/

Reading writes nothing. Names that would lead out of the bundle, links, special files, names that one file system
takes for the same, and archives that unpack to more than a limit are refused before anything is read.
"""

import hashlib
import shutil
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from modelpress.export.errors import InputError
from modelpress.export.files.atomic_folder import atomic_folder
from modelpress.export.files.inputs import open_input
from modelpress.export.files.places import check_folder_place
from modelpress.export.handoff.manifest import MANIFEST, SUMS, FileFacts, Manifest, parse_manifest

DEFAULT_MAX_BYTES = 4 << 30  # of all files together
MAX_FILES = 10_000
MAX_NAME_BYTES = 255  # of a file or folder; file systems take no longer ones
_MAX_MANIFEST_BYTES = 16 << 20
_BLOCK = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold: the same bytes each time
_UNIX = 3  # "made by", so that permissions are read as such
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may need any amount of memory


@dataclass(frozen=True)
class _Place:
    """Where a file of an open bundle is: a path, or an entry of an archive; and its size in bytes."""

    source: Path | zipfile.ZipInfo
    size_bytes: int


class Bundle:
    """An open bundle; use it in a ``with`` block. Its files are those of the manifest, no more and no fewer.

    Attributes:
        path: The folder or archive.
        manifest: Agrees with `SHA256SUMS`.
    """

    def __init__(self, path: Path, places: dict[str, _Place], archive: zipfile.ZipFile | None) -> None:
        self.path, self._places, self._archive = path, places, archive
        for name in (MANIFEST, SUMS):
            if name not in places:
                raise InputError(f"{path}: no bundle, {name} is missing")
            if places[name].size_bytes > _MAX_MANIFEST_BYTES:
                raise InputError(f"{path}: {name} takes more than {_MAX_MANIFEST_BYTES:,} bytes")

        data = self._content(MANIFEST)
        self.manifest = parse_manifest(data, str(path))
        _check_names(path, set(places) - {MANIFEST, SUMS}, set(self.manifest.files))

        if self._content(SUMS) != self.manifest.sums(data):
            raise InputError(f"{path}: {SUMS} does not fit {MANIFEST}; one of them was changed")

    def __enter__(self) -> "Bundle":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._archive is not None:
            _close(self._archive)

    def read(self, name: str) -> bytes:
        """One file of the manifest.

        Raises:
            InputError: The bundle has no such file, or its bytes changed since the bundle was made.
        """
        if name not in self.manifest.files:
            raise InputError(f"{self.path}: has no file {name!r}")
        data, facts = self._content(name), self.manifest.files[name]
        if len(data) != facts.size_bytes or hashlib.sha256(data).hexdigest() != facts.sha256:
            raise InputError(f"{self.path}: {name} changed since the bundle was made")
        return data

    def write(self, name: str, target: Path) -> None:
        """Write one file of the manifest, checked on the way, in the memory of one block.

        Raises:
            InputError: The bundle has no such file, or its bytes changed; what was written is no use then.
            OSError: The target cannot be written.
        """
        if name not in self.manifest.files:
            raise InputError(f"{self.path}: has no file {name!r}")
        facts, digest, size = self.manifest.files[name], hashlib.sha256(), 0
        with target.open("wb") as file:
            for block in self._blocks(name):
                digest.update(block)
                size += len(block)
                file.write(block)
        if size != facts.size_bytes or digest.hexdigest() != facts.sha256:
            raise InputError(f"{self.path}: {name} changed since the bundle was made")

    def copy_to(self, folder: Path) -> None:
        """Write all files into an empty folder, checked one by one.

        Raises:
            InputError: The folder is not empty or not writable, or a file changed since the bundle was made.
        """
        try:
            if any(folder.iterdir()):
                raise InputError(f"{folder} is not empty")
            for name in sorted(self._places):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if name in (MANIFEST, SUMS):
                    target.write_bytes(self._content(name))
                else:
                    self.write(name, target)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror}") from error

    def _content(self, name: str) -> bytes:
        return b"".join(self._blocks(name))

    def _blocks(self, name: str) -> Iterator[bytes]:
        """A file's bytes, and one more where it has more than it was said to."""
        place = self._places[name]
        left = place.size_bytes + 1
        try:
            with self._open(place) as file:
                while left and (block := file.read(min(left, _BLOCK))):
                    left -= len(block)
                    yield block
        except OSError as error:
            raise InputError(f"{self.path}: {name} cannot be read: {error.strerror or error}") from error
        except Exception as error:  # zipfile and zlib raise whatever damaged data lead to
            raise InputError(f"{self.path}: {name} cannot be unpacked: {error}") from error

    def _open(self, place: _Place) -> IO[bytes]:
        if isinstance(place.source, Path):
            return place.source.open("rb")
        assert self._archive is not None  # the only other kind of place is an entry of it
        return self._archive.open(place.source)


def open_bundle(path: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Bundle:
    """Open a folder or a `.zip` of one, from anywhere; nothing is unpacked.

    In an archive the files may lie at the top or, as `write_archive` puts them, in one folder.

    Args:
        path: Of the folder or archive.
        max_bytes: Refuse more than this, unpacked.

    Raises:
        InputError: It cannot be read, is no bundle, holds what a bundle does not hold, or files were changed,
            added or taken away since it was made.
    """
    path = Path(path)
    try:
        is_folder = path.is_dir()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error

    if is_folder:
        return Bundle(path, _in_folder(path, max_bytes), None)

    try:
        file = open_input(path)
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise InputError(f"{path} does not exist") from error
        raise

    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # as above
        file.close()
        raise InputError(f"{path}: neither a bundle's folder nor a zip archive: {error}") from error

    try:
        return Bundle(path, _in_archive(path, archive, max_bytes), archive)
    except BaseException:
        _close(archive)
        raise


def _close(archive: zipfile.ZipFile) -> None:
    """Close the file as well, which is ours: the archive leaves open what it was given open."""
    file = archive.fp
    archive.close()
    if file is not None:
        file.close()


def _in_folder(path: Path, max_bytes: int) -> dict[str, _Place]:
    """Every regular file below a folder.

    Raises:
        InputError: There is something else, or too much.
    """
    places, total, pending = {}, 0, [path]
    try:
        while pending:
            for entry in sorted(pending.pop().iterdir()):
                name, facts = entry.relative_to(path).as_posix(), entry.lstat()
                if stat.S_ISDIR(facts.st_mode):
                    pending.append(entry)
                elif stat.S_ISREG(facts.st_mode):
                    places[name] = _Place(entry, facts.st_size)
                    total += facts.st_size
                else:
                    what = "a link" if stat.S_ISLNK(facts.st_mode) else "no regular file"
                    raise InputError(f"{path}: {name} is {what}; a bundle holds regular files only")

                _check_limits(path, len(places) + len(pending), total, max_bytes)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error

    return places


def _in_archive(path: Path, archive: zipfile.ZipFile, max_bytes: int) -> dict[str, _Place]:
    """Every file of an archive, by its name inside the bundle.

    Raises:
        InputError: An entry is no plain file with a safe name, or there is too much.
    """
    entries = archive.infolist()
    _check_limits(path, len(entries), sum(entry.file_size for entry in entries), max_bytes)
    for entry in entries:
        _check_entry(path, entry)

    files = {entry.filename: entry for entry in entries if not entry.is_dir()}
    tops = {name.partition("/")[0] for name in files}
    prefix = f"{tops.pop()}/" if len(tops) == 1 and MANIFEST not in files else ""
    _check_distinct(path, entries)

    return {name.removeprefix(prefix): _Place(entry, entry.file_size) for name, entry in files.items()}


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    parts = entry.filename.removesuffix("/").split("/")
    if entry.filename != entry.orig_filename or any(ord(c) < ord(" ") or c in "\\:" for c in entry.filename):
        raise InputError(f"{path}: entry {entry.orig_filename!r} is no safe file name")
    if any(len(part.encode(errors="replace")) > MAX_NAME_BYTES for part in parts):
        raise InputError(
            f"{path}: entry {entry.filename[:40]!r}… has a name of more than {MAX_NAME_BYTES} bytes"
        )
    if any(part in ("", ".", "..") for part in parts):
        raise InputError(f"{path}: entry {entry.filename!r} would lead out of the bundle")

    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > entry.is_dir():
        raise InputError(f"{path}: entry {entry.filename!r} is a link or no regular file")
    if entry.is_dir() and entry.file_size:
        raise InputError(f"{path}: entry {entry.filename!r} is a folder with content")

    if entry.flag_bits & 1 or entry.compress_type not in _PLAIN:
        raise InputError(f"{path}: entry {entry.filename!r} is encrypted or not compressed by deflate")


def _check_distinct(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """No two entries may be one file on a disk, nor a file the folder of another."""
    files = [entry.filename.casefold() for entry in entries if not entry.is_dir()]
    seen: set[str] = set()
    folders = {entry.filename.casefold().removesuffix("/") for entry in entries if entry.is_dir()}
    folders |= {name.rsplit("/", depth)[0] for name in files for depth in range(1, name.count("/") + 1)}

    for name in files:
        if name in seen or name in folders:
            raise InputError(f"{path}: entry {name!r} is there twice")
        seen.add(name)


def _check_limits(path: Path, n_files: int, n_bytes: int, max_bytes: int) -> None:
    if n_files > MAX_FILES:
        raise InputError(f"{path}: more than {MAX_FILES:,} files; this is no bundle")
    if n_bytes > max_bytes:
        raise InputError(f"{path}: its files take more than {max_bytes:,} bytes; this is no bundle of ours")


def _check_names(path: Path, found: set[str], listed: set[str]) -> None:
    for names, what in ((listed - found, "is missing"), (found - listed, "is not listed in the manifest")):
        if names:
            rest = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise InputError(f"{path}: {min(names)}{rest} {what}")


@contextmanager
def staged_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """An empty folder to fill, which becomes `target` when the block ends well; see `atomic_folder`.

    Only a bundle is replaced. Whatever ends the block early removes the new folder and leaves the old one.

    Raises:
        InputError: The target exists and `overwrite` is not given, is not a bundle, or cannot be written.
    """
    check_target(target, overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{target}: cannot write in {target.parent}: {error.strerror}") from error

    with atomic_folder(target) as staged:
        yield staged


def check_target(target: Path, *, overwrite: bool) -> None:
    """Make sure that a bundle may take this place, before the work for it starts.

    Raises:
        InputError: Something is there that is not to be replaced, or the path cannot be looked at.
    """
    check_folder_place(target, _strangers, kind="a bundle", overwrite=overwrite)


def _strangers(folder: Path) -> list[str]:
    """What lies in a folder beside the files of a bundle: everything, where there is no bundle."""
    listed: set[str] = set()
    with suppress(InputError, OSError):
        manifest = parse_manifest((folder / MANIFEST).read_bytes(), str(folder))
        if (folder / SUMS).is_file():
            listed = {MANIFEST, SUMS, *manifest.files}

    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted({path.relative_to(folder).as_posix() for path in found} - listed)


def facts_of_files(folder: Path) -> dict[str, FileFacts]:
    """Size and SHA-256 of every file below a folder, sorted by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _facts(path) for path in files}


def _facts(path: Path) -> FileFacts:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileFacts(size_bytes=path.stat().st_size, sha256=digest)


def seal_folder(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` and `SHA256SUMS`, the last two files of a bundle."""
    data = manifest.to_bytes()
    (folder / MANIFEST).write_bytes(data)
    (folder / SUMS).write_bytes(manifest.sums(data))


def write_archive(file: IO[bytes], folder: Path, *, name: str) -> None:
    """Pack a bundle's folder into a zip, as one folder `name`; the same files give the same bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(f"{name}/{path.relative_to(folder).as_posix()}", _EPOCH)
            entry.create_system, entry.external_attr = _UNIX, (stat.S_IFREG | 0o644) << 16
            entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, path.stat().st_size
            with path.open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, _BLOCK)
