"""Bytes of integer weight codes under NNCodec (ISO/IEC 15938-17), zstd, xz and brotli.

Stands alone: needs NumPy and NNCodec, and uses zstandard and brotli where they are installed.
``README.md`` beside it says how to build the environment and what is checked.
"""

import argparse
import hashlib
import importlib
import itertools
import json
import lzma
import platform
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int32]

TOOLS = ("nncodec_file", "deepcabac_payload", "zstd_19", "xz_9e", "brotli_11")
CHECKED = (
    "nncodec_file: the file is read back and decodes to the same layers, shapes and codes",
    "deepcabac_payload: every layer's chosen payload decodes to the same codes",
    "zstd_19, xz_9e, brotli_11: the compressed string decompresses to the same bytes",
)
_VERSIONED = ("nncodec", "numpy", "torch", "zstandard", "brotli")
_UNARY_LENGTHS = (*range(1, 17), 20, 24, 32)  # greater-than flags before the Exp-Golomb escape
_SCAN_ORDERS = range(5)  # row by row, then blocks of 8, 16, 32 and 64
_NNCODEC_ARGUMENTS = {"verbose": False, "row_skipping": False}
_ROUNDS = 3  # timed runs, of which the fastest counts


class PeerError(Exception):
    """Bad input, a missing tool, or a tool that does not give back what it was given."""


@dataclass(frozen=True, kw_only=True)
class CoderSettings:
    """How DeepCABAC codes one layer; all of it is signalled outside the arithmetic-coded payload."""

    unary_length: int = 11
    optimised_start: bool = True  # initial states and adaptation rates chosen per context
    scan_order: int = 0
    row_skip: bool = False  # one flag for each output channel: all zero or not
    bounded: bool = False  # codebook mode: smallest and largest code known, no flag spent beyond them


def main(arguments: list[str] | None = None) -> None:
    """Measure each file, print a table, and write the record where ``--json`` says."""
    parser = argparse.ArgumentParser(description="bytes of weight codes under NNCodec, zstd, xz and brotli")
    parser.add_argument(
        "codes", nargs="+", type=Path, metavar="CODES.npz", help="one integer array per layer"
    )
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="where to write the full record")

    options = parser.parse_args(arguments)
    try:
        inputs = {path: read_codes(path) for path in options.codes}
        if options.json and not options.json.parent.is_dir():
            raise PeerError(f"{options.json.parent}: no such folder to write {options.json.name} into")

        _require("nncodec.nn")
        record: dict[str, Any] = {**describe_tools(), "checked": CHECKED, "files": []}
        print(_row("file", TOOLS))

        for path, layers in inputs.items():
            measured = peer_sizes(path, layers)
            record["files"].append(measured)
            print(_row(path.name, [measured["bytes"][tool] for tool in TOOLS]), flush=True)

        if options.json:
            options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    except (PeerError, OSError) as error:
        sys.exit(f"nncodec_sizes: {error}")


def describe_tools() -> dict[str, Any]:
    """Versions of the tools, Python, system and date (UTC)."""
    return {
        "versions": {name: _version(name) for name in _VERSIONED},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def peer_sizes(path: Path, layers: dict[str, Codes]) -> dict[str, Any]:
    """One file under every tool; each result is decoded again and compared."""
    text = dense_bytes(layers)
    file_bytes, speed = nncodec_file(layers)
    tuned = {name: tune_layer(name, codes) for name, codes in layers.items()}

    return {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "layers": len(layers),
        "codes": sum(codes.size for codes in layers.values()),
        "zeros": sum(int(np.count_nonzero(codes == 0)) for codes in layers.values()),
        "dense_bytes": len(text),
        "layer_name_bytes": sum(len(name.encode()) for name in layers),  # NNCodec's file stores the names
        "bytes": {
            "nncodec_file": file_bytes,
            "deepcabac_payload": sum(size for size, _ in tuned.values()),
            **general_sizes(text),
        },
        "nncodec_speed": speed,
        "deepcabac_layers": {name: {"bytes": size, **asdict(how)} for name, (size, how) in tuned.items()},
    }


# Input


def read_codes(path: Path) -> dict[str, Codes]:
    """Integer arrays of an ``.npz`` file, in its order, as int32.

    Raises:
        PeerError: Not an ``.npz`` of non-empty integer arrays within the range of int16.
    """
    if not path.is_file():
        raise PeerError(f"{path}: no such file")

    try:
        stored = np.load(path, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise PeerError(f"{path}: expected an .npz of one array per layer, got a single array")
        with stored:
            layers = {name: _checked(f"{path}: {name}", stored[name]) for name in stored.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PeerError(f"{path}: not a readable .npz of integer arrays ({error})") from error

    if not layers:
        raise PeerError(f"{path}: holds no array; expected one per layer")

    return layers


def _checked(where: str, codes: npt.NDArray[Any]) -> Codes:
    if not np.issubdtype(codes.dtype, np.integer):
        raise PeerError(f"{where}: expected integer codes, got {codes.dtype}")
    if codes.ndim == 0 or codes.size == 0:
        raise PeerError(f"{where}: expected at least one code in at least one dimension, got {codes.shape}")

    bounds = np.iinfo(np.int16)
    low, high = int(codes.min()), int(codes.max())
    if low < bounds.min or high > bounds.max:
        raise PeerError(f"{where}: codes {low}..{high} are outside {bounds.min}..{bounds.max}")

    return np.ascontiguousarray(codes, np.int32)


def dense_bytes(layers: dict[str, Codes]) -> bytes:
    """All codes in order as one int8 string, or little-endian int16 where a code needs it.

    Example:
        >>> dense_bytes({"conv": np.array([[1, -1]], np.int32), "fc": np.array([3], np.int32)}).hex()
        '01ff03'
        >>> dense_bytes({"conv": np.array([128], np.int32)}).hex()
        '8000'
    """
    flat = np.concatenate([codes.ravel() for codes in layers.values()])
    fits = flat.min() >= -128 and flat.max() <= 127
    return flat.astype(np.int8 if fits else "<i2").tobytes()


# NNCodec as it comes


def nncodec_file(layers: dict[str, Codes]) -> tuple[int, dict[str, float]]:
    """Bytes of the lossless file NNCodec writes, and its speed at one byte per code."""
    nn = _require("nncodec.nn")
    with tempfile.TemporaryDirectory() as folder:
        arguments = {**_NNCODEC_ARGUMENTS, "results": folder}  # it writes its file there
        encode_s, _ = _fastest(lambda: nn.encode(layers, arguments))
        written = list(Path(folder).iterdir())
        if len(written) != 1:
            raise PeerError(f"NNCodec was expected to write one file, got {[p.name for p in written]}")
        stream = written[0].read_bytes()

    decode_s, decoded = _fastest(lambda: nn.decode(bytearray(stream)))
    _compare(layers, decoded)
    megabytes = sum(codes.size for codes in layers.values()) / 1e6

    return len(stream), {
        "encode_s": encode_s,
        "decode_s": decode_s,
        "encode_mb_per_s": megabytes / encode_s,
        "decode_mb_per_s": megabytes / decode_s,
    }


def _compare(layers: dict[str, Codes], decoded: dict[str, npt.NDArray[Any]]) -> None:
    if layers.keys() != decoded.keys():
        raise PeerError(f"NNCodec lost or added layers: {sorted(layers.keys() ^ decoded.keys())}")
    for name, codes in layers.items():
        if not np.array_equal(codes, decoded[name]):
            raise PeerError(f"{name}: NNCodec decoded other codes than it was given; no size is reported")


def _fastest(call: Callable[[], Any]) -> tuple[float, Any]:
    seconds, result = [], None
    for _ in range(_ROUNDS):
        start = perf_counter()
        result = call()
        seconds.append(perf_counter() - start)
    return min(seconds), result


# DeepCABAC alone, tuned


def tune_layer(name: str, codes: Codes) -> tuple[int, CoderSettings]:
    """Fewest payload bytes of one layer over every combination of settings, with the settings."""
    cabac = _require("nncodec.extensions.deepCABAC")
    sizes = {how: len(encode_layer(cabac, codes, how)) for how in candidates(codes)}
    best = min(sizes, key=lambda how: sizes[how])  # the first of equals, which is the plainest
    restored = decode_layer(cabac, encode_layer(cabac, codes, best), codes, best)
    if not np.array_equal(restored, codes):
        raise PeerError(f"{name}: DeepCABAC with {best} decoded other codes than it was given")
    return sizes[best], best


def candidates(codes: Codes) -> Iterator[CoderSettings]:
    """Settings worth trying on a layer, plainest first.

    Example:
        >>> len(list(candidates(np.array([0, 1, -1], np.int32))))     # one row: no block scan, no row skip
        12
    """
    largest = int(np.abs(codes).max())
    rows = codes.reshape(len(codes), -1)  # (out, in * kh * kw)
    matrix = min(rows.shape) > 1  # the coder scans anything else row by row

    skip = (False, True) if matrix and not rows.any(axis=1).all() else (False,)
    lengths = [n for n in _UNARY_LENGTHS if n <= largest + 2] or [1]
    for row_skip, bounded, scan_order, optimised, length in itertools.product(
        skip, (False, True), _SCAN_ORDERS if matrix else (0,), (True, False), lengths
    ):
        yield CoderSettings(
            unary_length=length,
            optimised_start=optimised,
            scan_order=scan_order,
            row_skip=row_skip,
            bounded=bounded,
        )


def encode_layer(cabac: Any, codes: Codes, how: CoderSettings) -> bytes:
    """Arithmetic-coded payload of one layer."""
    empty_rows = (~codes.reshape(len(codes), -1).any(axis=1)).astype(np.int32)
    encoder = cabac.Encoder()
    encoder.initCtxModels(how.unary_length, int(how.optimised_start))
    encoder.encodeLayer(
        codes, 0, *_scan(how), int(how.row_skip), empty_rows, *_no_history(cabac), *_range(codes, how)
    )
    return bytes(encoder.finish())


def decode_layer(cabac: Any, payload: bytes, codes: Codes, how: CoderSettings) -> Codes:
    """Codes of a payload; `codes` gives the shape, and the range where `how` is bounded."""
    stream, restored = np.frombuffer(payload, np.uint8), np.zeros_like(codes)
    arguments = (restored, 0, *_scan(how), *_no_history(cabac), *_range(codes, how))
    scout = _decoder(cabac, stream, how)
    entry_points = scout.decodeLayerAndCreateEPs(*arguments)  # what NNCodec stores beside a block scan
    decoder = _decoder(cabac, stream, how)
    if len(entry_points):
        decoder.setEntryPoints(entry_points)

    restored.fill(0)
    decoder.decodeLayer(*arguments)
    return restored


def _decoder(cabac: Any, stream: npt.NDArray[np.uint8], how: CoderSettings) -> Any:
    decoder = cabac.Decoder()
    decoder.setStream(stream)
    decoder.initCtxModels(how.unary_length)
    return decoder


def _scan(how: CoderSettings) -> tuple[int, int, int]:
    """Scan order, profile (edition 2 has row skipping and bounded codes), and no parent network."""
    return how.scan_order, int(how.row_skip or how.bounded), 0


def _no_history(cabac: Any) -> tuple[Any, npt.NDArray[np.int8]]:
    return cabac.HdspMode.AlwaysOff, np.zeros(2, np.int8)


def _range(codes: Codes, how: CoderSettings) -> tuple[int, int]:
    """Number of code values and the place of zero among them, or ``(0, 0)`` where they are not told."""
    if not how.bounded:
        return 0, 0
    low, high = min(0, int(codes.min())), max(0, int(codes.max()))
    return high - low + 1, -low


# General compressors


def general_sizes(text: bytes) -> dict[str, int | None]:
    """Bytes under zstd -19, xz -9e and brotli 11; ``None`` where the package is not installed."""
    zstd, brotli = _optional("zstandard"), _optional("brotli")
    return {
        "zstd_19": zstd
        and _size("zstd", text, zstd.ZstdCompressor(level=19).compress, zstd.ZstdDecompressor().decompress),
        "xz_9e": _size("xz", text, _xz, lzma.decompress),
        "brotli_11": brotli
        and _size("brotli", text, lambda data: brotli.compress(data, quality=11), brotli.decompress),
    }


def _size(
    tool: str, text: bytes, compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes]
) -> int:
    packed = compress(text)
    if decompress(packed) != text:
        raise PeerError(f"{tool} decompressed other bytes than it was given; no size is reported")
    return len(packed)


def _xz(text: bytes) -> bytes:
    return lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)


# Tools that may be missing


def _require(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PeerError(f"{module} cannot be imported ({error}); README.md says how to install it") from error


def _optional(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _row(first: str, cells: Any) -> str:
    return f"{first:<24}" + "".join(f"{'-' if cell is None else cell!s:>19}" for cell in cells)


if __name__ == "__main__":
    main()
