"""Quantized weights as artifacts of every kind hold them, beside what NNCodec made of the same levels."""

import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelpress.export.choices import Effort
from modelpress.export.errors import InputError
from modelpress.export.press.encodings.levels import source_of
from modelpress.export.press.reading import open_artifact
from modelpress.export.press.writing import write_artifact
from modelpress.export.quantized import QuantizedModel, QuantizedTensor

_SCALES, _SHARED = "scales", "shared tables"


@dataclass(frozen=True)
class PeerSizes:
    """What the record of NNCodec says of one set of levels.

    Attributes:
        levels: How many.
        zeros: Those that are 0.
        file_bytes: Its file, without the names of layers, which artifacts hold elsewhere.
    """

    levels: int
    zeros: int
    file_bytes: int


@dataclass(frozen=True)
class CodedSizes:
    """Bytes of one artifact.

    Attributes:
        whole_file: Everything.
        weights: Quantized tensors with their headers and tables, scales not counted.
        parts: Where the bytes of quantized tensors, and of the tables they share, go.
    """

    whole_file: int
    weights: int
    parts: dict[str, int]


def peer_sizes(record: Path) -> dict[str, PeerSizes]:
    """A record of `benchmarks/peers/nncodec_sizes.py`, by the names of its files without suffix.

    Raises:
        InputError: It cannot be read, or is no such record.
    """
    try:
        return {
            Path(entry["file"]).stem: PeerSizes(
                int(entry["codes"]),
                int(entry["zeros"]),
                int(entry["bytes"]["nncodec_file"]) - int(entry["layer_name_bytes"]),
            )
            for entry in json.loads(record.read_text(encoding="utf-8"))["files"]
        }
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{record}: no record of nncodec_sizes.py ({error!r})") from error


def peer_of(path: Path, model: QuantizedModel, peers: dict[str, PeerSizes]) -> PeerSizes:
    """What the peer measured on the levels of an artifact: the entry whose name ends in the artifact's.

    Raises:
        InputError: There is none, there are several, or its levels are others.
    """
    found = [name for name in peers if name == path.stem or name.endswith(f"-{path.stem}")]
    if len(found) != 1:
        raise InputError(
            f"{path}: {len(found)} entries of the record are named so; expected one of {sorted(peers)}"
        )

    peer = peers[found[0]]
    levels = _levels_and_zeros(model)
    if levels != (peer.levels, peer.zeros):
        raise InputError(
            f"{path}: holds {levels[0]:,} levels, {levels[1]:,} of them 0; {found[0]} has {peer.levels:,} and "
            f"{peer.zeros:,}, so it is of other weights"
        )
    return peer


def _levels_and_zeros(model: QuantizedModel) -> tuple[int, int]:
    n_levels = n_zeros = 0
    for tensor in model.tensors.values():
        if isinstance(tensor, QuantizedTensor):
            levels = source_of(tensor).levels(0, tensor.codes.size)
            n_levels += levels.size
            n_zeros += levels.size - int(np.count_nonzero(levels))
    return n_levels, n_zeros


def coded_sizes(model: QuantizedModel, effort: Effort) -> CodedSizes:
    """Pack a model, decode and compare it, and count."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.press"
        whole = write_artifact(path, model, effort=effort)
        parts: Counter[str] = Counter()
        with open_artifact(path) as artifact:
            for stored in artifact.stored():
                if isinstance(stored.tensor, QuantizedTensor):
                    parts += stored.parts
            parts[_SHARED] = artifact.table_bytes

    weights = sum(parts.values()) - parts[_SCALES]
    return CodedSizes(whole, weights, {name: parts[name] for name in sorted(parts)})
