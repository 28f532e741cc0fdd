"""Run a model in ONNX Runtime; one of the two files of `export` that import it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from export.errors import InputError

PROVIDER = "CPUExecutionProvider"


def open_session(
    model: Path | bytes, *, threads: int | None = None, spinning: bool = True
) -> ort.InferenceSession:
    """Load a model on the CPU provider with all graph optimisations.

    Args:
        model: A file, or a serialised ONNX model.
        threads: Intra-operator threads; None leaves the choice to the runtime.
        spinning: Whether idle threads keep polling. Off where several sessions share a machine.

    Raises:
        InputError: ONNX Runtime does not accept the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    try:
        session = ort.InferenceSession(source, options, providers=[PROVIDER])
    except Exception as error:  # onnxruntime's exception classes share no public base
        name = "the model" if isinstance(model, bytes) else model
        raise InputError(f"{name}: ONNX Runtime cannot load it: {error}") from error
    if session.get_providers() != [PROVIDER]:
        raise InputError(f"ONNX Runtime runs on {session.get_providers()}, expected {PROVIDER}")
    return session


def single_input(session: ort.InferenceSession) -> str:
    """Name of the only input.

    Raises:
        InputError: The model has several.
    """
    names = [node.name for node in session.get_inputs()]
    if len(names) != 1:
        raise InputError(
            f"model has {len(names)} inputs ({', '.join(names)}); expected one: a batch of images"
        )
    return str(names[0])


def run_batched(
    session: ort.InferenceSession, images: npt.NDArray[np.float32], *, batch: int = 256
) -> npt.NDArray[np.float32]:
    """Logits of all images, shape ``(n, classes)``.

    Raises:
        InputError: The images do not fit the model's input.
    """
    name = single_input(session)
    try:
        parts = [session.run(None, {name: images[i : i + batch]})[0] for i in range(0, len(images), batch)]
    except Exception as error:
        expected = session.get_inputs()[0].shape
        raise InputError(
            f"ONNX Runtime rejects images of shape {images.shape}; the model expects {expected}: {error}"
        ) from error
    return np.concatenate(parts)
