"""Is an artifact whole, and is it the model that it is said to be?"""

import sys
from pathlib import Path

import numpy as np
import onnx

from modelpress.benchmarks.audits.loss import loss_against
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.export.errors import InputError, ModelError
from modelpress.export.files.kinds import Kind, kind_of
from modelpress.export.graphs.check import check_graph
from modelpress.export.isolation.foreign import ForeignProcess, foreign_work
from modelpress.export.onnx_flavours import emit
from modelpress.export.press.reading import DEFAULT_MAX_DECODED_BYTES, decode_artifact, open_artifact
from modelpress.export.press.writing import encode_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import open_session, run_batched, single_input

_NAMED = 4  # of the tensors that differ


def verification(
    path: Path,
    *,
    against: Path | None = None,
    exact: bool = False,
    max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES,
) -> dict[str, str]:
    """Check an artifact in every way this toolkit knows; each step says what it found.

    Args:
        path: Of the artifact.
        against: A model whose weights are compared with the decoded ones. Quantized tensors may differ from it, which
            is told, with how much; all others must be equal bit for bit.
        exact: Quantized tensors must be equal as well.
        max_decoded_bytes: Refuse files whose tensors are larger in memory.

    Raises:
        InputError: A file cannot be opened, or the two are swapped.
        ArtifactError: A checksum or the content is wrong.
        ModelError: The decoded model is not valid, or differs from `against` where it must not.
    """
    with foreign_work() as process:
        return _verification(path, against, process, exact=exact, max_decoded_bytes=max_decoded_bytes)


def _verification(
    path: Path, against: Path | None, process: ForeignProcess, *, exact: bool, max_decoded_bytes: int
) -> dict[str, str]:
    if against is not None:
        _check_order(path, against)
    with open_artifact(path, max_decoded_bytes=max_decoded_bytes) as artifact:
        process.start(check_graph.__module__, open_session.__module__)  # while we decode
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
        steps["weights"] = _compared(path, model, against, exact=exact)
    return steps


def _check_order(path: Path, against: Path) -> None:
    if kind_of(path) is Kind.ONNX and kind_of(against) is Kind.PRESS:
        raise InputError(
            f"{path}: is an ONNX model, and {against} the artifact: swap them, "
            f"`modelpress verify {against} --against {path}`"
        )


def _compared(path: Path, model: QuantizedModel, against: Path, *, exact: bool) -> str:
    """Beside a model that the artifact was packed from, or that was written from it.

    Raises:
        ModelError: A tensor differs that must not.
    """
    loss = loss_against(model, open_model(against).onnx_model)
    must_not = [*loss.wrong, *(tensor.name for tensor in loss.lossy if exact)]
    if must_not:
        names = ", ".join(must_not[:_NAMED]) + ", …" * (len(must_not) > _NAMED)
        raise ModelError(
            f"{against} differs from {path} in {len(must_not)} tensors that should be equal bit for bit: {names}"
        )

    if not loss.lossy:
        return f"all {loss.n_tensors} tensors equal those of {against} bit for bit"
    worst = loss.lossy[0]
    return (
        f"lossy: {loss.n_equal} of {loss.n_tensors} tensors equal those of {against} bit for bit, "
        f"{len(loss.lossy)} quantized ones differ; signal to noise {loss.signal_to_noise_db:.1f} dB; "
        f"worst is {worst.name}: largest difference {worst.largest:.1e}, mean {worst.mean:.1e}"
    )


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
