"""Where the bytes of an artifact are."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from modelpress.benchmarks.measures.sparsity import sparsity_of
from modelpress.benchmarks.records import LayerRecord, SizeRecord
from modelpress.export.press.reading import Artifact, TensorUsage
from modelpress.export.quantized import QuantizedTensor, dense_array

_BINS = 41


def size_record(artifact: Artifact, stored: list[TensorUsage], *, ladder: Mapping[str, int]) -> SizeRecord:
    """Account for every byte of a file.

    Args:
        artifact: The file.
        stored: Its decoded tensors.
        ladder: What other forms would take; see `codes.ladder.stored_ladder`.
    """
    quantized = [t for t in stored if isinstance(t.tensor, QuantizedTensor)]
    parts: Counter[str] = sum((t.parts for t in quantized), Counter())

    return SizeRecord(
        payload=parts["payload"],
        tables=parts["tables"] + artifact.table_bytes,
        scales=parts["scales"],
        headers=parts["header"],
        float_tensors=sum(t.record.n_bytes for t in stored if not isinstance(t.tensor, QuantizedTensor)),
        directory=artifact.directory_bytes,
        graph=artifact.graph_bytes,
        frame=artifact.frame_bytes,
        ladder=dict(ladder),
    )


def layer_record(
    name: str,
    weight: npt.NDArray[np.generic],
    stored: TensorUsage | None,
    *,
    estimated_loss: float | None = None,
) -> LayerRecord:
    """One layer of a running model, with what the artifact says of it."""
    record = LayerRecord(
        name=name, shape=list(weight.shape), weights=weight.size, sparsity=sparsity_of(weight)
    )
    if stored is None:
        return record

    record.encoding = stored.encoding_name
    record.estimated_loss = estimated_loss
    record.stored_bytes = stored.record.n_bytes
    record.parts = dict(stored.parts)
    # zeros are left out: one bar of them would hide all others
    values = np.asarray(dense_array(stored.tensor), np.float64)
    counts, edges = np.histogram(values[values != 0], bins=_BINS)
    record.bin_counts, record.bin_edges = counts.tolist(), edges.tolist()

    if isinstance(stored.tensor, QuantizedTensor):
        record.bits = stored.tensor.bits
        record.grid, record.grid_counts = _grid_use(stored.tensor)

    return record


def _grid_use(tensor: QuantizedTensor) -> tuple[list[float], list[int]]:
    """Grid values, none where every channel has its own, and how many nonzero weights sit on each code."""
    low, high = tensor.code_range
    counts = np.bincount(tensor.codes[tensor.nonzero].astype(np.int64) - low, minlength=high - low + 1)
    # grids of channels differ, so codes can be counted together but values cannot
    if np.ndim(tensor.scale):
        return [], counts.tolist()
    codes = np.arange(low, high + 1)
    values = codes * float(tensor.scale) + (0.0 if tensor.offset is None else float(tensor.offset))
    return values.tolist(), counts.tolist()
