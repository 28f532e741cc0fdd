"""Where the bytes of an artifact are, and what other encodings would have taken."""

from collections import Counter

import numpy as np
import numpy.typing as npt

from benchmarks.records import LayerRecord, SizeRecord
from benchmarks.sparsity import sparsity_of
from export.artifact import ArtifactUsage, TensorUsage
from export.encodings import encode_every_way
from export.quantized import QuantizedTensor, dense_array

_BINS = 41


def size_record(usage: ArtifactUsage) -> SizeRecord:
    """Account for every byte of a file."""
    quantized = [t for t in usage.tensors if isinstance(t.tensor, QuantizedTensor)]
    parts: Counter[str] = sum((t.parts for t in quantized), Counter())
    return SizeRecord(
        payload=parts["payload"],
        tables=parts["tables"],
        scales=parts["scales"],
        headers=parts["header"],
        float_tensors=sum(
            t.record.n_bytes for t in usage.tensors if not isinstance(t.tensor, QuantizedTensor)
        ),
        directory=usage.directory_bytes,
        graph=usage.graph_bytes,
        frame=usage.frame_bytes,
        ladder=_ladder([t.tensor for t in quantized if isinstance(t.tensor, QuantizedTensor)]),
    )


def layer_record(name: str, weight: npt.NDArray[np.generic], stored: TensorUsage | None) -> LayerRecord:
    """One layer of a running model, with what the artifact says of it."""
    record = LayerRecord(
        name=name, shape=list(weight.shape), weights=weight.size, sparsity=sparsity_of(weight)
    )
    if stored is None:
        return record
    record.encoding = stored.encoding_name
    record.stored_bytes = stored.record.n_bytes
    record.parts = dict(stored.parts)
    values = np.asarray(dense_array(stored.tensor), np.float64)
    counts, edges = np.histogram(values[values != 0], bins=_BINS)
    record.bin_counts, record.bin_edges = counts.tolist(), edges.tolist()
    if isinstance(stored.tensor, QuantizedTensor):
        record.bits = stored.tensor.bits
        record.grid, record.grid_counts = _grid_use(stored.tensor)
    return record


def _ladder(tensors: list[QuantizedTensor]) -> dict[str, int]:
    """All quantized tensors in one encoding each; where it cannot hold one, that one is bit-packed."""
    if not tensors:
        return {}
    rungs = {
        "float32": sum(4 * t.codes.size for t in tensors),
        "int8 codes": sum(t.codes.size for t in tensors),
    }
    ways = [{name: sum(blob.sizes.values()) for name, blob in encode_every_way(t).items()} for t in tensors]
    for name in ("packed", "huffman", "csr+huffman"):
        rungs[name] = sum(way.get(name, way["packed"]) for way in ways)
    rungs["smallest of each"] = sum(min(way.values()) for way in ways)
    return rungs


def _grid_use(tensor: QuantizedTensor) -> tuple[list[float], list[int]]:
    """Grid values of a per-tensor scale and how many nonzero weights sit on each; empty per channel."""
    if np.ndim(tensor.scale):
        return [], []
    low, high = tensor.code_range
    codes = np.arange(low, high + 1)
    values = codes * float(tensor.scale) + (0.0 if tensor.offset is None else float(tensor.offset))
    counts = np.bincount(tensor.codes[tensor.nonzero].astype(np.int64) - low, minlength=high - low + 1)
    return values.tolist(), counts.tolist()
