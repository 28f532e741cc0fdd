"""Is an artifact whole, and is it the model that it is said to be?"""

import tempfile
from pathlib import Path

import numpy as np

from modelpress.benchmarks.audits.loss import loss_against, loss_beside
from modelpress.benchmarks.measures.trial import arrays_of, calls_that_run
from modelpress.benchmarks.subjects.feeding import calls_with
from modelpress.benchmarks.subjects.given import NOTHING, Array, Given
from modelpress.benchmarks.subjects.inputs import check_names, input_specs
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.export.choices import DEFAULT_MAX_DECODED_BYTES
from modelpress.export.errors import InputError, ModelError
from modelpress.export.files.kinds import Kind, kind_of
from modelpress.export.graphs.check import check_graph, described
from modelpress.export.graphs.source import open_onnx
from modelpress.export.handoff.bundle_files.verify import Finding
from modelpress.export.isolation.foreign import foreign_work
from modelpress.export.onnx_flavours import prepare
from modelpress.export.press.reading import open_artifact
from modelpress.export.press.writing import write_checked
from modelpress.export.quantized import QuantizedModel, QuantizedTensor
from modelpress.export.runtime import open_decoded, open_session, run_feed

_NAMED = 4  # of the tensors that differ
# of decoded tensors; larger models are decoded one tensor at a time, in every step anew
_HELD_BYTES = 1 << 27


def verification(
    path: Path,
    *,
    against: Path | None = None,
    exact: bool = False,
    allow_external_data: bool = False,
    given: Given = NOTHING,
    max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES,
) -> list[Finding]:
    """Check an artifact in every way this toolkit knows; each step held, or was not checked, and says why.

    Args:
        path: Of the artifact.
        against: A model whose weights are compared with the decoded ones. Quantized tensors may differ from it, which
            is told, with how much; all others must be equal bit for bit.
        exact: Quantized tensors must be equal as well.
        allow_external_data: Follow tensors of `against` into other files of its folder.
        given: What the user says of inputs; others are made up.
        max_decoded_bytes: Refuse files whose tensors are larger in memory.

    Raises:
        InputError: A file cannot be opened, or the two are swapped.
        ArtifactError: A checksum or the content is wrong.
        ModelError: The decoded model is not valid, or differs from `against` where it must not.
    """
    with foreign_work() as process:
        if against is not None:
            _check_order(path, against)
        with open_artifact(path, max_decoded_bytes=max_decoded_bytes) as artifact:
            process.start(check_graph.__module__, open_session.__module__)  # while we decode
            model = artifact.model_within(_HELD_BYTES)
            return [
                _held(
                    "checksums",
                    f"SHA-256 of {artifact.size_bytes:,} bytes, CRC-32 of {len(model.tensors)} tensors",
                ),
                _held("decode", _decoded(model)),
                _held("re-encode", _check_reencoding(model)),
                _held("ONNX checker", _check_as_onnx(model)),
                _run(path, model, given),
                *(
                    [
                        _held(
                            "weights",
                            _compared(path, model, against, exact=exact, external=allow_external_data),
                        )
                    ]
                    if against is not None
                    else []
                ),
            ]


def _held(check: str, detail: str) -> Finding:
    return Finding(check, True, detail)


def _check_order(path: Path, against: Path) -> None:
    if kind_of(path) is Kind.ONNX and kind_of(against) is Kind.PRESS:
        raise InputError(
            f"{path}: is an ONNX model, and {against} the artifact: swap them, "
            f"`modelpress verify {against} --against {path}`"
        )


def _compared(path: Path, model: QuantizedModel, against: Path, *, exact: bool, external: bool) -> str:
    """Beside a model that the artifact was packed from, or that was written from it.

    Raises:
        ModelError: A tensor differs that must not.
    """
    if kind_of(against) is Kind.ONNX:
        source = open_onnx(against, allow_external_data=external)
        loss = loss_beside(model, QuantizedModel(source.graph, source.tensors))
    else:
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


def _decoded(model: QuantizedModel) -> str:
    """What kinds of tensors there are; those that are made when asked for are made here for the first time."""
    n_quantized = sum(isinstance(tensor, QuantizedTensor) for tensor in model.tensors.values())
    return f"{n_quantized} quantized and {len(model.tensors) - n_quantized} other tensors"


def _check_reencoding(model: QuantizedModel) -> str:
    """Encode again and decode that: the decoded model is a fixed point.

    Raises:
        ModelError: It is not.
        InputError: There is no room for what is encoded.
    """
    try:
        with tempfile.SpooledTemporaryFile(_HELD_BYTES) as file:
            write_checked(file, model)
    except ModelError as error:
        raise ModelError(f"the decoded model does not survive another round trip: {error}") from error
    except OSError as error:
        raise InputError(
            f"{tempfile.gettempdir()}: cannot be written: {error.strerror or error}; the artifact must fit there, "
            "or in another folder named by TMPDIR"
        ) from error
    return "the decoded model packs and decodes to itself, bit for bit"


def _check_as_onnx(model: QuantizedModel) -> str:
    """The flavour `float`, which is the model as it was, is valid ONNX."""
    graph = prepare(model, flavour="float").model.graph
    return f"opset {graph.opset_import[0].version}, {len(graph.graph.node)} nodes"


def _run(path: Path, model: QuantizedModel, given: Given) -> Finding:
    """Whether ONNX Runtime computes numbers; not checked where it cannot be asked.

    Raises:
        InputError: What is given does not fit the model.
        ModelError: It takes too long.
    """
    step = "ONNX Runtime"
    try:
        specs = input_specs(described(model))
    except InputError as error:
        return Finding(step, None, f"not run: {error}")

    check_names(given.names, [specs])
    calls_with(str(path), specs, given) if given.names else None  # what is given and does not fit is refused
    try:
        session = open_decoded(model)
        calls = calls_that_run(session, str(path), specs, given)
        results = [run_feed(session, arrays_of(call)) for call in calls]
    except InputError as error:
        return Finding(step, None, f"not run: {error}")

    shapes = "; ".join(f"{name} {np.shape(value)}" for name, value in results[0].items())
    fed = ", ".join(f"{feed.name} {feed.dtype} {feed.shape}" for feed in calls[0])
    whose = f"{len(calls)} calls given" if given.calls else f"made up: {fed}"
    wild = {name: True for result in results for name, value in result.items() if not _is_finite(value)}
    if wild:
        return Finding(
            step,
            None,
            f"runs; {', '.join(wild)} holds NaN or infinity ({whose}); give what the model will see by --input",
        )

    outputs = f"output shape {np.shape(next(iter(results[0].values())))}" if len(results[0]) == 1 else shapes
    return _held(step, f"runs; {outputs}, finite; {whose}")


def _is_finite(value: Array) -> bool:
    array = np.asarray(value)
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())
