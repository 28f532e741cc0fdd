"""What an artifact holds and where its bytes are."""

from pathlib import Path
from typing import Any

from modelpress.benchmarks.codes.ladder import entropies
from modelpress.benchmarks.measures.sparsity import sparsity_of
from modelpress.export.choices import DEFAULT_MAX_DECODED_BYTES
from modelpress.export.coding.byte_parts import PARTS
from modelpress.export.graphs.parts import metadata
from modelpress.export.press.reading import Artifact, TensorUsage, open_artifact
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.rate.outcomes import losses_of


def inspection(path: Path, *, max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES) -> dict[str, Any]:
    """Everything an artifact says about itself.

    Raises:
        ArtifactError: It cannot be trusted.
    """
    with open_artifact(path, max_decoded_bytes=max_decoded_bytes) as artifact:
        return {
            "file": str(path),
            "format_version": ".".join(map(str, artifact.version)),
            "size_bytes": artifact.size_bytes,
            "graph_bytes": artifact.graph_bytes,
            "directory_bytes": artifact.directory_bytes,
            "table_bytes": artifact.table_bytes,
            "frame_bytes": artifact.frame_bytes,
            "metadata": metadata(artifact.graph),
            "tensors": _tensors(artifact),
        }


def _tensors(artifact: Artifact) -> list[dict[str, Any]]:
    """All tensors; where a price was set, with the loss that each was estimated to cost."""
    stored = list(artifact.stored())
    losses = losses_of(metadata(artifact.graph), {each.record.name: each.tensor for each in stored})
    return [_inspected(each, losses.get(each.record.name)) for each in stored]


def _inspected(stored: TensorUsage, loss: float | None) -> dict[str, Any]:
    """One tensor; the entropy bound is the smaller of the zero-order entropies, in bytes."""
    tensor = stored.tensor
    bits, bound = None, None

    if isinstance(tensor, QuantizedTensor):
        bits, bound = tensor.bits, min(entropies(tensor).values())
        sparsity = sparsity_of(tensor.nonzero)
    else:
        sparsity = sparsity_of(tensor)

    return {
        "name": stored.record.name,
        "shape": list(stored.record.spec.shape),
        "bits": bits,
        "bits_per_weight": 8 * stored.record.n_bytes / max(stored.record.spec.size, 1),
        "estimated_loss": loss,
        "sparsity": sparsity,
        "encoding": stored.encoding_name,
        "bytes": stored.record.n_bytes,
        **{part: stored.parts.get(part, 0) for part in PARTS},
        "entropy_bound": bound,
    }
