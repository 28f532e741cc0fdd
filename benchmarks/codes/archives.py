"""Whole ONNX files without loss: as artifacts, beside what general compressors make of them."""

import hashlib
import lzma
import tempfile
from dataclasses import dataclass
from pathlib import Path

from modelpress.benchmarks.codes.optional import optional_module
from modelpress.export.choices import Effort
from modelpress.export.post_training.packing import WeightOptions, open_for_packing
from modelpress.export.press.writing import write_artifact

_ZSTANDARD_LEVEL = 19


@dataclass(frozen=True)
class Archived:
    """One file, in bytes.

    Attributes:
        file: Its name.
        sha256: Of its bytes.
        original: As it is.
        artifact: Packed without loss, decoded and compared.
        zstandard: At level 19; None where that package is not installed.
        xz: As `xz -9e` writes it.
    """

    file: str
    sha256: str
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

    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return Archived(path.name, digest, len(data), artifact, _zstandard(data), _xz(data))


def _xz(data: bytes) -> int:
    return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


def _zstandard(data: bytes) -> int | None:
    zstandard = optional_module("zstandard")
    return None if zstandard is None else len(zstandard.ZstdCompressor(level=_ZSTANDARD_LEVEL).compress(data))
