"""What `bench size`, `bench coding` and `bench scaling` do, and what `bench training` shows."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modelpress.benchmarks.codes.beside_nncodec import coded_sizes, peer_of, peer_sizes
from modelpress.benchmarks.codes.ladder import BOUNDS, TensorLadder, size_ladder, total_ladder
from modelpress.benchmarks.codes.loading import load_times
from modelpress.benchmarks.codes.scaling import ScalePoint, scale_point
from modelpress.benchmarks.codes.speed import drawn_symbols, mixed_context_speed, stream_speeds
from modelpress.benchmarks.environment import describe_environment
from modelpress.benchmarks.report.plots import size_ladder as draw
from modelpress.export.choices import DEFAULT_MAX_DECODED_BYTES, EFFORTS, Effort
from modelpress.export.coding.core import core
from modelpress.export.errors import InputError
from modelpress.export.files.atomic import write_atomically
from modelpress.export.press.reading import open_artifact, read_artifact
from modelpress.export.quantized import QuantizedTensor
from modelpress.toolkit.commands.console import answer_line, print_table
from modelpress.toolkit.progress import Progress

_STORED, _WHOLE = "as stored", "whole file"
_COLUMNS = 3  # of the table: so many tensors, the largest
_LOAD_ROUNDS = 30
_BESIDE: tuple[Effort, ...] = ("default", "max")  # efforts that are compared with other coders


def ladder_of(
    path: Path, progress: Progress, *, max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES
) -> dict[str, Any]:
    """Every form of the quantized tensors of an artifact, in bytes.

    Raises:
        InputError: It holds none.
    """
    with open_artifact(path, max_decoded_bytes=max_decoded_bytes) as artifact:
        stored = {record.name: record.n_bytes for record in artifact.records}
        progress.start("size ladder", len(artifact.records))
        tensors = []
        for usage in artifact.stored():
            if isinstance(usage.tensor, QuantizedTensor):
                tensors.append((usage.record.name, usage.tensor))
            progress.advance(usage.record.name)
        progress.finish()

    if not tensors:
        raise InputError(f"{path}: holds no quantized tensor, so there is no ladder")

    progress.start("every form", len(tensors))
    ladders = size_ladder(tensors, on_tensor=progress.advance)
    progress.finish()

    total = total_ladder(ladders)
    facts = [_facts(ladder, stored[ladder.name]) for ladder in ladders]
    in_all = sum(stored[ladder.name] for ladder in ladders) + artifact.table_bytes
    return {
        "file": str(path),
        "size_bytes": artifact.size_bytes,
        "tensors": facts,
        "all": {
            **_facts(total, in_all),
            _WHOLE: artifact.size_bytes,
        },
    }


def _facts(ladder: TensorLadder, stored: int) -> dict[str, Any]:
    return {
        "name": ladder.name,
        "weights": ladder.n_weights,
        **ladder.rungs,
        _STORED: stored,
        **ladder.bounds,
    }


def show_ladder(facts: dict[str, Any], *, wide: bool = False) -> None:
    """One table, a form per row; columns are the largest tensors and the total."""
    largest = sorted(facts["tensors"], key=lambda t: -t["weights"])[:_COLUMNS]
    columns = [*largest, facts["all"]]

    forms = [key for key in facts["all"] if key not in ("name", "weights")]
    rows = []
    for form in forms:
        cells = {str(i): f"{c[form]:,}" if form in c else "" for i, c in enumerate(columns)}
        share = f"{facts['all'][form] / facts['all']['float32']:.2%}"
        rows.append({"form": f"bound: {form}" if form in BOUNDS else form, **cells, "share": share})

    headings = {"form": "bytes", **{str(i): c["name"] for i, c in enumerate(columns)}, "share": "of float32"}
    in_all = str(len(columns) - 1)
    print_table(
        f"{facts['file']}, {facts['all']['weights']:,} quantized weights",
        rows,
        headings,
        narrow=[{key: headings[key] for key in ("form", in_all, "share")}],
        wide=wide,
    )


def draw_ladder(path: Path, facts: dict[str, Any]) -> None:
    """The total ladder as a figure."""
    rungs = {
        f"bound: {form}" if form in BOUNDS else form: size
        for form, size in facts["all"].items()
        if form not in ("name", "weights", _WHOLE)
    }
    write_atomically(path, draw(rungs).encode())


def beside_peers(
    paths: list[Path], record: Path, progress: Progress, *, max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES
) -> dict[str, Any]:
    """Quantized weights packed anew at several efforts, beside NNCodec's bytes; with the size ladder of each file.

    Raises:
        InputError: A file or the record cannot be read, or the record is not of these weights.
    """
    peers, rows = peer_sizes(record), []
    for path in paths:
        model = read_artifact(path, max_decoded_bytes=max_decoded_bytes)
        peer = peer_of(path, model, peers)
        row: dict[str, Any] = {"codes": path.stem, "nncodec_without_names": peer.file_bytes}
        for effort in _BESIDE:
            sizes = coded_sizes(model, effort)
            row[effort] = {**asdict(sizes), "of_nncodec": round(sizes.weights / peer.file_bytes, 4)}
        ladder = ladder_of(path, progress, max_decoded_bytes=max_decoded_bytes)["all"]
        row["ladder_with_scales"] = {form: ladder[form] for form in ladder if form != "name"}
        rows.append(row)
    return {"rows": rows, "environment": describe_environment()}


def show_beside(facts: dict[str, Any]) -> None:
    """One table."""
    rows = []
    for row in facts["rows"]:
        cells = {"codes": row["codes"], "peer": f"{row['nncodec_without_names']:,}"}
        for effort in _BESIDE:
            cells[effort] = f"{row[effort]['weights']:,}"
            cells[f"of {effort}"] = f"{row[effort]['of_nncodec']:.4f}"
        rows.append(cells)
    headings = {"codes": "weights, bytes", "peer": "NNCodec"}
    for effort in _BESIDE:
        headings |= {effort: effort, f"of {effort}": "of NNCodec"}
    print_table("Headers, tables and payload, without scales and names", rows, headings)


def measure_coding(
    path: Path,
    *,
    n_symbols: int,
    rounds: int,
    progress: Progress,
    max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES,
) -> dict[str, Any]:
    """Streams, mixed contexts and loading, of one artifact.

    Raises:
        InputError: It holds nothing quantized.
    """
    model = read_artifact(path, max_decoded_bytes=max_decoded_bytes)
    symbols = drawn_symbols(model, n_symbols)

    n_ways = 2 + (core() is not None)
    progress.start("streams", rounds * n_ways)
    streams = stream_speeds(symbols, rounds=rounds, on_round=progress.advance)
    progress.finish()

    progress.start("mixed contexts", 1)
    encode, decode = mixed_context_speed(model, rounds=rounds)
    progress.advance()
    progress.finish()

    with tempfile.TemporaryDirectory() as folder:
        progress.start("loading", (1 + len(EFFORTS)) * (_LOAD_ROUNDS + rounds + 2))
        loading = load_times(
            model,
            Path(folder),
            rounds=_LOAD_ROUNDS,
            fresh_rounds=rounds,
            on_round=progress.advance,
        )
        progress.finish()

    return {
        "file": path.name,
        "symbols": n_symbols,
        "rounds": rounds,
        "streams": [asdict(speed) for speed in streams],
        "mixed_contexts": {"encode_m_weights_per_s": encode, "decode_m_weights_per_s": decode},
        "loading": [asdict(load) for load in loading],
        "environment": describe_environment(),
    }


def show_coding(facts: dict[str, Any]) -> None:
    """Two tables and a line."""
    rows = [
        {
            "name": speed["name"],
            "size": f"{speed['size_bytes']:,}",
            "encode": f"{speed['encode_mb_per_s']:,.0f}",
            "decode": f"{speed['decode_mb_per_s']:,.0f}",
        }
        for speed in facts["streams"]
    ]
    title = f"{facts['symbols']:,} symbols with the frequencies of {facts['file']}, one thread"
    print_table(title, rows, {"name": "", "size": "bytes", "encode": "encode MB/s", "decode": "decode MB/s"})

    mixed = facts["mixed_contexts"]
    answer_line(
        f"mixed contexts: {mixed['encode_m_weights_per_s']:.1f} million weights/s written, "
        f"{mixed['decode_m_weights_per_s']:.1f} read"
    )
    rows = [
        {
            "name": load["name"],
            "size": f"{load['size_bytes']:,}",
            "ms": f"{load['milliseconds']:.2f}",
            "ratio": f"{load['ratio']:.2f}x",
            "cpu": f"{load['cpu_ratio']:.2f}x",
            "fresh": f"{load['fresh_cpu_ratio']:.2f}x",
            "process": f"{load['process_ratio']:.2f} / {load['process_cpu_ratio']:.2f}x",
        }
        for load in facts["loading"]
    ]
    headings = {
        "name": "",
        "size": "bytes",
        "ms": "ms to a ready session",
        "ratio": "of ONNX",
        "cpu": "processor",
        "fresh": "fresh",
        "process": "whole process",
    }
    print_table(
        "Loading into ONNX Runtime, one thread, median, as a multiple of the ONNX file's", rows, headings
    )
    answer_line(
        "processor: its time, in a process that has loaded it before; fresh: in one that has not, imports not counted; "
        "whole process: imports included, by the clock / of the processor"
    )


def measure_scaling(
    sizes: tuple[int, ...], effort: Effort, rounds: int, progress: Progress
) -> dict[str, Any]:
    """Pack and load one synthetic tensor of every size, each in a process of its own.

    Sizes take turns for some rounds, of which the fastest counts for each: a machine that is slow for a second is slow
    for all of them.
    """
    tasks = [(direction, n_weights) for direction in ("encode", "decode") for n_weights in sizes]
    found: dict[tuple[str, int], list[ScalePoint]] = {task: [] for task in tasks}
    progress.start("scaling", rounds * len(tasks))
    for _ in range(rounds):
        for direction, n_weights in tasks:
            found[direction, n_weights].append(scale_point(direction, n_weights, effort))
            progress.advance(f"{direction} {n_weights:,}")
    progress.finish()

    points = [min(points, key=lambda point: point.seconds) for points in found.values()]
    return {
        "rounds": rounds,
        "points": [asdict(point) for point in points],
        "environment": describe_environment(),
    }


def show_scaling(facts: dict[str, Any]) -> None:
    """One table."""
    rows = [
        {
            "direction": point["direction"],
            "weights": f"{point['n_weights']:,}",
            "seconds": f"{point['seconds']:.2f}",
            "ns": f"{point['nanoseconds_per_weight']:.1f}",
            "extra": f"{point['extra_mb']:.0f}",
            "size": f"{point['size_bytes']:,}",
        }
        for point in facts["points"]
    ]
    headings = {
        "direction": "",
        "weights": "weights",
        "seconds": "seconds",
        "ns": "ns per weight",
        "extra": "extra MB",
        "size": "bytes",
    }
    effort = facts["points"][0]["effort"]
    print_table(f"Effort {effort}; extra MB: memory beyond tensors and file", rows, headings)


def show_training(facts: dict[str, Any]) -> None:
    """One table, and how to read it."""
    rows = [
        {
            "way": row["way"],
            "speed": f"{row['images_per_second']['median']:,.0f}",
            "speeds": _span(row["images_per_second"], ",.0f"),
            "ratio": f"{row['ratio']['median']:.2f}x",
            "ratios": _span(row["ratio"], ".2f"),
        }
        for row in facts["ways"]
    ]
    headings = {
        "way": "",
        "speed": "images/s",
        "speeds": "min – max",
        "ratio": "times as fast",
        "ratios": "min – max",
    }
    network, device = facts["network"], facts["environment"]["training_device"]
    print_table(
        f"{network['arch']} on {facts['data']}, {facts['images']:,} images, batch {facts['batch']}, {device}",
        rows,
        headings,
    )
    n_rounds = len(facts["ways"][0]["ratio"]["rounds"])
    answer_line(
        f"medians of {n_rounds} round{'s' * (n_rounds > 1)}; times as fast: as the plain loop of the same round, "
        f"float32 with {facts['workers']} workers"
    )


def _span(figures: dict[str, Any], form: str) -> str:
    return f"{figures['min']:{form}} – {figures['max']:{form}}"
