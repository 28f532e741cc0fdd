"""All measurements of a set of files, put together."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy import top1, wilson_interval
from benchmarks.latency import measure_latency
from benchmarks.model_file import ModelFile
from benchmarks.records import ModelRecord
from benchmarks.size import layer_record, size_record
from benchmarks.sparsity import layer_weights, total_sparsity
from export.runtime import open_session, run_batched

Logits = npt.NDArray[np.float32]


def describe_model(model: ModelFile, *, shown_as: str = "") -> ModelRecord:
    """Size and sparsity, in all and per layer; `shown_as` replaces the file's name."""
    weights = layer_weights(model.onnx_model)
    stored = {t.record.name: t for t in model.stored}
    return ModelRecord(
        name=model.path.stem,
        path=shown_as or model.path.name,
        format="press" if model.artifact else "onnx",
        size_bytes=model.size_bytes,
        sparsity=total_sparsity(weights),
        layers=[layer_record(name, weight, stored.get(name)) for name, weight in weights.items()],
        size=size_record(model.artifact, model.stored) if model.artifact else None,
    )


def add_accuracy(
    record: ModelRecord, model: ModelFile, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> Logits:
    """Classify all images in ONNX Runtime; fills the record and returns the logits."""
    logits = run_batched(open_session(model.serialised()), images)
    record.top1, record.n_images = top1(logits, labels), len(labels)
    record.top1_interval = wilson_interval(record.top1, len(labels))
    return logits


def add_latency(
    records: list[ModelRecord],
    paths: list[Path],
    *,
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    rounds: int,
    on_round: Callable[[Path], None],
) -> None:
    """Time all files against each other; fills the records."""
    measured = measure_latency(paths, batches=batches, threads=threads, rounds=rounds, on_round=on_round)
    for record, path in zip(records, paths, strict=True):
        record.latency = measured[path]
