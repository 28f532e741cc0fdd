"""Whole ONNX files without loss: as artifacts, beside what general compressors make of them."""

import lzma
import tempfile
from dataclasses import dataclass
from pathlib import Path

from modelpress.benchmarks.codes.optional import optional_module
from modelpress.export.choices import Effort
from modelpress.export.post_training.packing import WeightOptions, open_for_packing
from modelpress.export.press.writing import write_artifact

_ZSTANDARD_LEVEL = 19
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Archived:
    """One file, in bytes.

    Attributes:
        file: Its name.
        original: As it is.
        artifact: Packed without loss, decoded and compared.
        zstandard: At level 19; None where that package is not installed.
        xz: As `xz -9e` writes it.
    """

    file: str
    original: int
    artifact: int
    zstandard: int | None
    xz: int


def archived(path: Path, effort: Effort) -> Archived:
    """Compress one ONNX file in every way.

    Raises:
        InputError: The file cannot be read.
        ModelError: It holds something that cannot be packed.
    """
    source = open_for_packing(path, WeightOptions(lossless=True), allow_external_data=False)
    with tempfile.TemporaryDirectory() as folder:
        artifact = write_artifact(Path(folder) / "m.press", source.model, effort=effort)

    return Archived(path.name, path.stat().st_size, artifact, _zstandard(path), _xz(path))


def _xz(path: Path) -> int:
    packer = lzma.LZMACompressor(lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME)
    with path.open("rb") as file:
        size = sum(len(packer.compress(part)) for part in iter(lambda: file.read(_AT_ONCE), b""))
    return size + len(packer.flush())


def _zstandard(path: Path) -> int | None:
    zstandard = optional_module("zstandard")
    if zstandard is None:
        return None
    return len(zstandard.ZstdCompressor(level=_ZSTANDARD_LEVEL).compress(path.read_bytes()))
