"""What the commands do that work on finished files; nothing here needs torch."""

import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import onnx

from modelpress.benchmarks.audits.fidelity import tensors_that_differ
from modelpress.benchmarks.codes.ladder import entropies
from modelpress.benchmarks.measures.sparsity import sparsity_of
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.export.coding.byte_parts import PARTS
from modelpress.export.errors import InputError, ModelError
from modelpress.export.files.atomic import atomic_writer
from modelpress.export.graphs.building import metadata
from modelpress.export.onnx_flavours import emit, write_onnx
from modelpress.export.press.artifact import (
    DEFAULT_MAX_DECODED_BYTES,
    TensorUsage,
    decode_artifact,
    encode_artifact,
    open_artifact,
)
from modelpress.export.press.encodings.grid import grid_of
from modelpress.export.press.encodings.levels import levels_of
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, Tensor
from modelpress.export.runtime import open_session, run_batched, single_input

ArraysOf = Callable[[str, Tensor], Iterator[tuple[str, Any]]]  # members of an .npz for one tensor

_ZIP32_BYTES = 1 << 30  # members that may be longer than this need the large form of the format


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
            "tensors": [_inspected(stored) for stored in artifact.stored()],
        }


def _inspected(stored: TensorUsage) -> dict[str, Any]:
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
        "sparsity": sparsity,
        "encoding": stored.encoding_name,
        "bytes": stored.record.n_bytes,
        **{part: stored.parts.get(part, 0) for part in PARTS},
        "entropy_bound": bound,
    }


def show_inspection(facts: dict[str, Any]) -> None:
    """Print an inspection as tables."""
    from modelpress.toolkit.commands.console import ANSWER, print_table

    numbers = ("bytes", *PARTS)
    rows = [
        {
            "name": tensor["name"],
            "shape": "x".join(map(str, tensor["shape"])),
            "bits": str(tensor["bits"] or "float"),
            "sparsity": f"{tensor['sparsity']:.1%}",
            "encoding": tensor["encoding"],
            **{key: f"{tensor[key]:,}" for key in numbers},
            "entropy_bound": "" if tensor["entropy_bound"] is None else f"{tensor['entropy_bound']:,}",
        }
        for tensor in facts["tensors"]
    ]
    rest = dict.fromkeys(("shape", "bits", "sparsity", "encoding", *PARTS, "entropy_bound"), "")
    for name, size in (
        ("graph", facts["graph_bytes"]),
        ("tensor directory", facts["directory_bytes"]),
        ("shared code tables", facts["table_bytes"]),
        ("file and chunk headers", facts["frame_bytes"]),
        ("whole file", facts["size_bytes"]),
    ):
        rows.append({"name": name, "bytes": f"{size:,}", **rest})
    headings = {key: key for key in ("name", "shape", "bits", "sparsity", "encoding", *numbers)}
    headings["entropy_bound"] = "entropy"
    print_table(f"{facts['file']}, format {facts['format_version']}", rows, headings)
    for key, value in facts["metadata"].items():
        ANSWER.print(f"{key}: {value}", markup=False)


def verification(
    path: Path, *, against: Path | None = None, max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES
) -> dict[str, str]:
    """Check an artifact in every way this toolkit knows; each step says what it found.

    Raises:
        ArtifactError: A checksum or the content is wrong.
        ModelError: The decoded model is not valid, or differs from `against`.
    """
    with open_artifact(path, max_decoded_bytes=max_decoded_bytes) as artifact:
        model = artifact.model()
    n_quantized = len(model.quantized())
    steps = {
        "checksums": f"SHA-256 of {artifact.size_bytes:,} bytes, CRC-32 of {len(model.tensors)} tensors",
        "decode": f"{n_quantized} quantized and {len(model.tensors) - n_quantized} other tensors",
        "re-encode": _check_reencoding(model),
    }
    emitted = emit(model, flavour="float")
    steps["ONNX checker"] = f"opset {emitted.opset_import[0].version}, {len(emitted.graph.node)} nodes"
    steps["ONNX Runtime"] = _check_runtime(emitted)
    if against is not None:
        differing = tensors_that_differ(model, open_model(against).onnx_model)
        if differing:
            raise ModelError(
                f"{against} differs from {path} in {len(differing)} tensors: {', '.join(differing[:4])}"
            )
        steps["weights"] = f"all {len(model.tensors)} tensors equal those of {against} bit for bit"
    return steps


def unpack_file(
    path: Path,
    target: Path,
    *,
    levels: bool = False,
    max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES,
) -> int:
    """Decode into ``.onnx`` or ``.npz``; returns the size of the new file in bytes.

    Args:
        path: Of the artifact.
        target: Of the new file.
        levels: Into the ``.npz``, only quantized tensors, as the signed levels that are coded.
        max_decoded_bytes: Refuse files whose tensors are larger in memory.

    Raises:
        InputError: The target has another suffix, or levels are asked for in an ONNX model.
    """
    if target.suffix not in (".onnx", ".npz"):
        raise InputError(f"{target}: expected a name that ends in .onnx or .npz")
    if levels and target.suffix == ".onnx":
        raise InputError(f"{target}: --levels go into a name that ends in .npz")
    with open_artifact(path, max_decoded_bytes=max_decoded_bytes) as artifact:
        model = artifact.lazy_model()
        if target.suffix == ".onnx":
            return write_onnx(target, model, flavour="float")
        with atomic_writer(target) as file:
            _write_npz(file, model, _levels_of if levels else _arrays_of)
    return target.stat().st_size


def _check_reencoding(model: QuantizedModel) -> str:
    """Encode again and decode that: the decoded model is a fixed point."""
    again = decode_artifact(encode_artifact(model), max_decoded_bytes=sys.maxsize)
    if not again.equals(model):
        raise ModelError("the decoded model does not survive another round trip")
    return "the decoded model packs and decodes to itself, bit for bit"


def _check_runtime(model: onnx.ModelProto) -> str:
    session = open_session(bytes(model.SerializeToString()))
    shape = single_input(session).shape
    zeros = np.zeros([1, *(size if isinstance(size, int) else 1 for size in shape[1:])], np.float32)
    logits = run_batched(session, zeros)  # refuses what is not finite
    return f"runs; output shape {logits.shape}, finite"


def _write_npz(file: IO[bytes], model: QuantizedModel, arrays_of: ArraysOf) -> None:
    """The arrays that `arrays_of` makes of each tensor.

    Raises:
        ModelError: A name would leave the folder it is unpacked into, or two tensors ask for the same one.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name in model.tensors:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
                raise ModelError(f"tensor name {name!r} is no safe file name; unpack to .onnx instead")
            for member, array in arrays_of(name, model.tensors[name]):
                if f"{member}.npy" in archive.NameToInfo:
                    raise ModelError(f"two tensors are called {member!r}; unpack to .onnx instead")
                undated = zipfile.ZipInfo(f"{member}.npy")  # the same bytes each time
                with archive.open(
                    undated, "w", force_zip64=np.asarray(array).nbytes > _ZIP32_BYTES
                ) as content:
                    np.lib.format.write_array(content, np.asarray(array), allow_pickle=False)


def _levels_of(name: str, tensor: Tensor) -> Iterator[tuple[str, Any]]:
    """Levels of a quantized tensor in its shape."""
    if isinstance(tensor, QuantizedTensor):
        yield name, levels_of(tensor, grid_of(tensor), 0, tensor.codes.size).reshape(tensor.shape)


def _arrays_of(name: str, tensor: Tensor) -> Iterator[tuple[str, Any]]:
    """Integer codes and parameters as ``NAME/codes``, ``NAME/scale``, …; other tensors under their own name."""
    if not isinstance(tensor, QuantizedTensor):
        yield name, tensor
        return
    for part in ("codes", "scale", "offset", "support", "channel_scale"):
        if getattr(tensor, part) is not None:
            yield f"{name}/{part}", getattr(tensor, part)
