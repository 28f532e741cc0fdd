"""From a file to a session of ONNX Runtime that is ready to run; imports no more than that takes.

Example:
    >>> import tempfile
    >>> from onnx import parser, save
    >>> folder = tempfile.TemporaryDirectory()
    >>> save(parser.parse_model('''
    ...     <ir_version: 8, opset_import: ["": 17]> double (float[N] x) => (float[N] y) { y = Add(x, x) }
    ... '''), Path(folder.name, "model.onnx"))
    >>> open_session(Path(folder.name, "model.onnx"), threads=1).get_inputs()[0].name
    'x'
    >>> folder.cleanup()
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from modelpress.export.choices import DEFAULT_MAX_DECODED_BYTES
from modelpress.export.errors import InputError
from modelpress.export.files.inputs import is_folder, open_input, read_input
from modelpress.export.files.kinds import PRESS_MAGIC, Wanted, check_kind, wrong_kind
from modelpress.export.press.at_once import read_at_once
from modelpress.export.runtime import open_decoded, open_with_weights
from modelpress.export.runtime import open_session as session_of

if TYPE_CHECKING:
    import onnxruntime as ort

    from modelpress.export.quantized import QuantizedModel


def open_session(
    model: "str | Path | QuantizedModel", *, threads: int | None = None
) -> "ort.InferenceSession":
    """A model in ONNX Runtime, ready to run: a ``.press`` or ``.onnx`` file, or what `read_artifact` returned.

    No ONNX file is written for an artifact: its decoded weights are handed over where they lie.

    Args:
        model: The model.
        threads: Threads within an operator; None leaves the choice to the runtime.

    Raises:
        InputError: The file cannot be read, or ONNX Runtime does not accept the model.
        ArtifactError: It is a damaged artifact.

    Example:
        >>> open_session("/")
        Traceback (most recent call last):
        modelpress.export.errors.InputError: /: is a folder, neither a .press artifact nor an ONNX model
    """
    if not isinstance(model, str | os.PathLike):
        return open_decoded(model, threads=threads)
    path = Path(model)
    check_kind(path, Wanted.MODEL)
    if not is_artifact(path):
        from modelpress.export.graphs.source import check_size_of_graph  # much that an artifact does not need

        check_size_of_graph(path)
    return load_session(path, threads=threads)


def load_session(
    path: Path,
    *,
    threads: int | None = None,
    spinning: bool = True,
    max_decoded_bytes: int = DEFAULT_MAX_DECODED_BYTES,
) -> "ort.InferenceSession":
    """From a file to a session, the way users of each format would take.

    An ONNX file is read and handed to the runtime; an artifact is decoded and its weights are handed over where they
    lie, with no ONNX file in between.

    Raises:
        InputError: The file cannot be read, or ONNX Runtime does not accept the model.
        ArtifactError: It is a damaged artifact.
    """
    if is_artifact(path):
        found = read_at_once(path, max_decoded_bytes=max_decoded_bytes)
        if found is not None:
            return open_with_weights(*found, threads=threads, spinning=spinning)

        from modelpress.export.press.reading import open_artifact  # and onnx with it

        with open_artifact(path, max_decoded_bytes=max_decoded_bytes) as artifact:
            return open_decoded(artifact.model_once(), threads=threads, spinning=spinning)
    return session_of(read_input(path), threads=threads, spinning=spinning)


def is_artifact(path: Path) -> bool:
    """Whether a file is to be read as an artifact, by its name or its first bytes.

    Raises:
        InputError: The file cannot be read.
    """
    if path.suffix == ".press":
        return True
    if is_folder(path):
        raise InputError(wrong_kind(path, Wanted.MODEL))
    with open_input(path) as file:
        # a file may have been renamed
        return file.read(len(PRESS_MAGIC)) == PRESS_MAGIC
