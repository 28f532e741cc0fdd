"""Run a model in ONNX Runtime; the only file of `export` that imports it."""

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from modelpress.export.errors import InputError
from modelpress.export.lazy_tensors import dense_of
from modelpress.export.quantized import QuantizedModel

PROVIDER = "CPUExecutionProvider"
_HANDED_OVER_FROM = 1024  # bytes; smaller tensors travel inside the graph


def open_session(model: bytes, *, threads: int | None = None, spinning: bool = True) -> ort.InferenceSession:
    """Load a serialised ONNX model on the CPU provider with all graph optimisations.

    Args:
        model: The bytes of an ONNX file.
        threads: Intra-operator threads; None leaves the choice to the runtime.
        spinning: Whether idle threads wait in a loop for the next call, which keeps a core busy.

    Raises:
        InputError: ONNX Runtime does not accept the model.
    """
    return _session(model, _options(threads, spinning=spinning))


def open_decoded(
    model: QuantizedModel, *, threads: int | None = None, spinning: bool = True
) -> ort.InferenceSession:
    """Load a decoded artifact without writing or serialising its weights: they are handed over where they lie.

    Args:
        model: Graph and tensors; these are decoded to dense arrays, which the session keeps alive.
        threads: As above.
        spinning: As above.

    Raises:
        InputError: ONNX Runtime does not accept the model.
    """
    options = _options(threads, spinning=spinning)
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.graph)

    names, values = [], []
    for name in model.tensors:
        dense = dense_of(model.tensors, name)
        array = np.ascontiguousarray(dense).reshape(dense.shape)
        if array.nbytes < _HANDED_OVER_FROM or array.dtype.kind != "f":
            # shapes and the like, whose values the runtime reads while it builds the graph
            _describe(skeleton.graph.initializer.add(), name, array).raw_data = _little_endian(array)
            continue

        place = _describe(skeleton.graph.initializer.add(), name, array)
        place.data_location = onnx.TensorProto.EXTERNAL
        place.external_data.add(key="location", value="in memory")
        names.append(name)
        values.append(ort.OrtValue.ortvalue_from_numpy(array))

    if names:
        options.add_external_initializers(names, values)

    session = _session(bytes(skeleton.SerializeToString()), options)
    session._modelpress_weights = values  # the runtime refers to their memory
    return session


def _describe(tensor: onnx.TensorProto, name: str, array: npt.NDArray[np.generic]) -> onnx.TensorProto:
    """Fill in name, shape and type."""
    tensor.name = name
    tensor.dims.extend(array.shape)
    tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return tensor


def _little_endian(array: npt.NDArray[np.generic]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _options(threads: int | None, *, spinning: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads

    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    return options


def _session(model: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        session = ort.InferenceSession(model, options, providers=[PROVIDER])
    except Exception as error:  # onnxruntime's exception classes share no public base
        raise InputError(f"ONNX Runtime cannot load the model: {error}") from error

    if session.get_providers() != [PROVIDER]:
        raise InputError(f"ONNX Runtime runs on {session.get_providers()}, expected {PROVIDER}")
    return session


def single_input(session: ort.InferenceSession) -> ort.NodeArg:
    """The only input.

    Raises:
        InputError: The model has several, or none.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(node.name for node in inputs)
        raise InputError(f"model has {len(inputs)} inputs ({names}); expected one: a batch of images")
    return inputs[0]


def run_batched(
    session: ort.InferenceSession, images: npt.NDArray[np.float32], *, batch: int = 256
) -> npt.NDArray[np.float32]:
    """Logits of all images, shape ``(n, classes)``.

    Raises:
        InputError: The images do not fit the model's input, or its output is no table of logits.
    """
    node = single_input(session)
    if len(session.get_outputs()) != 1:
        raise InputError(f"model has {len(session.get_outputs())} outputs; expected one: logits")
    return np.concatenate(
        [_run_one(session, node, images[start : start + batch]) for start in range(0, len(images), batch)]
    )


def _run_one(
    session: ort.InferenceSession, node: ort.NodeArg, images: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    try:
        logits = session.run(None, {node.name: images})[0]
    except Exception as error:  # as above
        raise InputError(
            f"ONNX Runtime rejects images of shape {images.shape}; the model expects {node.shape}: {error}"
        ) from error

    shape: tuple[int, ...] = getattr(logits, "shape", ())
    if len(shape) != 2 or shape[0] != len(images):
        raise InputError(
            f"model output has shape {shape} for {len(images)} images; expected one row of logits each"
        )
    if not np.isfinite(logits).all():
        raise InputError("model output holds NaN or infinity")

    return np.asarray(logits, np.float32)


def run_named(
    session: ort.InferenceSession, images: npt.NDArray[np.generic]
) -> dict[str, npt.NDArray[np.generic]]:
    """All outputs of one batch by name.

    Raises:
        InputError: The images do not fit the model's input.
    """
    node = single_input(session)
    try:
        values = session.run(None, {node.name: images})
    except Exception as error:  # onnxruntime's exception classes share no public base
        raise InputError(
            f"ONNX Runtime rejects images of shape {images.shape}; the model expects {node.shape}: {error}"
        ) from error

    return {output.name: value for output, value in zip(session.get_outputs(), values, strict=True)}
