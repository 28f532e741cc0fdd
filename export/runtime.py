"""Run a model in ONNX Runtime; the only file of `export` that imports it."""

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError, ModelpressError
from modelpress.export.graphs.protobuf_wire import (
    GRAPH_INITIALIZER,
    MODEL_GRAPH,
    TENSOR_EXTERNAL_DATA,
    TENSOR_RAW_DATA,
    length_prefix,
    tensor_header,
)
from modelpress.export.isolation.current import foreign_process

if TYPE_CHECKING:
    import onnxruntime as ort

    from modelpress.export.isolation.foreign import ForeignProcess
    from modelpress.export.isolation.messages import Array, Facts
    from modelpress.export.quantized import QuantizedModel

Weight = tuple[str, int, tuple[int, ...], memoryview | bytearray]
"""Name, ONNX type, shape, and the elements as ``raw_data`` of an ONNX tensor holds them."""

PROVIDER = "CPUExecutionProvider"
_HANDED_OVER_FROM = 1024  # bytes; smaller tensors travel inside the graph
_MOST_SENT = 1 << 27  # bytes of weights; more goes to another process by way of a file, not held twice
_HANDED_OVER: dict[int, np.dtype[np.generic]] = {  # by ONNX type
    1: np.dtype("<f4"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
}
# external_data says that the location is "in memory", data_location (field 14) that there are such data
_ELSEWHERE = (
    length_prefix(TENSOR_EXTERNAL_DATA, 21) + b"\x0a\x08location\x12\x09in memory" + bytes([14 << 3, 1])
)


class SessionSettings(NamedTuple):
    """How a model is loaded.

    Attributes:
        threads: Intra-operator threads; None leaves the choice to the runtime.
        spinning: Whether idle threads wait in a loop for the next call, which keeps a core busy.
        optimised: With all graph optimisations, or as the graph stands.
        arena: Keep freed memory for the next call.
        save_as: Write the optimised graph to this path.
    """

    threads: int | None = None
    spinning: bool = True
    optimised: bool = True
    arena: bool = True
    save_as: str | None = None


def open_session(
    model: bytes,
    *,
    threads: int | None = None,
    spinning: bool = True,
    settings: SessionSettings | None = None,
) -> "ort.InferenceSession":
    """Load a serialised ONNX model on the CPU provider; inside `foreign_work`, in its process.

    Args:
        model: The bytes of an ONNX file.
        threads: Intra-operator threads; None leaves the choice to the runtime.
        spinning: Whether idle threads wait in a loop for the next call, which keeps a core busy.
        settings: Takes the place of both.

    Raises:
        InputError: ONNX Runtime does not accept the model.
    """
    return _session(model, settings or SessionSettings(threads, spinning), {})


def open_decoded(
    model: "QuantizedModel", *, threads: int | None = None, spinning: bool = True
) -> "ort.InferenceSession":
    """Load a decoded artifact without writing or serialising its weights: they are handed over where they lie.

    Early exits are left out. Inside `foreign_work`, the weights of a large model are written to a temporary file that
    its process maps: none of them is held twice.

    Args:
        model: Graph and tensors; these are decoded to dense arrays, which the session keeps alive.
        threads: As above.
        spinning: As above.

    Raises:
        InputError: ONNX Runtime does not accept the model, or there is no room for the file.
    """
    from modelpress.export.exits.declaring import without_exits  # who has a graph's bytes needs no onnx
    from modelpress.export.lazy_tensors import spec_of

    model = without_exits(model)
    if (
        foreign_process() is not None
        and sum(spec_of(model.tensors, n).n_bytes for n in model.tensors) > _MOST_SENT
    ):
        return _open_by_file(model, SessionSettings(threads, spinning))
    graph = bytes(model.graph.SerializeToString())
    return open_with_weights(graph, _weights_of(model), threads=threads, spinning=spinning)


def _open_by_file(model: "QuantizedModel", settings: SessionSettings) -> "ort.InferenceSession":
    """Load a model from a temporary folder, written tensor by tensor.

    Raises:
        InputError: As for `open_decoded`.
    """
    import tempfile  # few need it, and this module's users pay for every import

    from modelpress.export.graphs.stream import write_onnx_with_data

    folder = tempfile.TemporaryDirectory(prefix="modelpress-", ignore_cleanup_errors=True)
    graph, weights = (Path(folder.name, name) for name in ("model.onnx", "weights"))
    try:
        with graph.open("wb") as file, weights.open("wb") as data:
            write_onnx_with_data(file, data, model, location=weights.name)
        session = _session(graph, settings, {})
    except OSError as error:
        raise InputError(
            f"{folder.name}: cannot be written: {error.strerror or error}; "
            "the weights of the model must fit there, or in another folder named by TMPDIR"
        ) from error
    finally:
        folder.cleanup()  # what is mapped lives on, except on Windows, which keeps the file itself

    weakref.finalize(session, folder.cleanup)
    return session


def _weights_of(model: "QuantizedModel") -> Iterator[Weight]:
    from modelpress.export.lazy_tensors import dense_of, spec_of
    from modelpress.export.tensor_spec import raw_bytes

    for name in model.tensors:
        spec = spec_of(model.tensors, name)
        yield name, spec.onnx_type, spec.shape, raw_bytes(dense_of(model.tensors, name))


def open_with_weights(
    graph: bytes, weights: Iterable[Weight], *, threads: int | None = None, spinning: bool = True
) -> "ort.InferenceSession":
    """Load a graph and its initializers, large ones handed over where they lie.

    Args:
        graph: A serialised ONNX model without initializers.
        weights: Them; the session keeps alive what it refers to.
        threads: As above.
        spinning: As above.

    Raises:
        InputError: ONNX Runtime does not accept the model.
    """
    added: list[bytes] = []
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for name, onnx_type, shape, data in weights:
        dtype = _HANDED_OVER.get(onnx_type)
        tensor = tensor_header(name, onnx_type, shape)
        if dtype is None or len(data) < _HANDED_OVER_FROM:
            # shapes and the like, whose values the runtime reads while it builds the graph
            tensor += length_prefix(TENSOR_RAW_DATA, len(data)) + data
        else:
            tensor += _ELSEWHERE
            array = np.frombuffer(data, dtype).reshape(shape)
            arrays[name] = array.astype(dtype.newbyteorder("="), copy=False)
        added.append(length_prefix(GRAPH_INITIALIZER, len(tensor)) + tensor)

    # a message that occurs twice is one, with the repeated fields of both
    initializers = b"".join(added)
    model = graph + length_prefix(MODEL_GRAPH, len(initializers)) + initializers
    return _session(model, SessionSettings(threads, spinning), arrays)


def _session(
    model: bytes | Path, settings: SessionSettings, weights: Mapping[str, npt.NDArray[np.generic]]
) -> "ort.InferenceSession":
    """A session of the runtime; inside `foreign_work` one that stands for it.

    Raises:
        InputError: ONNX Runtime does not accept the model.
    """
    process = foreign_process()
    if process is not None:
        return cast("ort.InferenceSession", ForeignSession(process, model, settings, weights))
    return _loaded(model if isinstance(model, bytes) else str(model), settings, weights)


def _loaded(
    model: bytes | str, settings: SessionSettings, weights: Mapping[str, npt.NDArray[np.generic]]
) -> "ort.InferenceSession":
    import onnxruntime as ort  # who asks another process need not load it

    options = _options(settings)
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    if values:
        options.add_external_initializers(list(weights), values)

    try:
        session = ort.InferenceSession(model, options, providers=[PROVIDER])
    except Exception as error:  # onnxruntime's exception classes share no public base
        raise InputError(f"ONNX Runtime cannot load the model: {error}") from error

    if session.get_providers() != [PROVIDER]:
        raise InputError(f"ONNX Runtime runs on {session.get_providers()}, expected {PROVIDER}")

    session._modelpress_weights = values  # the runtime refers to their memory
    return session


def _options(settings: SessionSettings) -> "ort.SessionOptions":
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3 if settings.optimised else 4
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = settings.arena
    if settings.threads is not None:
        options.intra_op_num_threads = settings.threads

    if not settings.spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not settings.optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if settings.save_as is not None:
        options.optimized_model_filepath = settings.save_as

    return options


class _Node(NamedTuple):
    """An input or output, as the runtime describes it."""

    name: str
    shape: list[int | str | None]
    type: str


class _ModelMeta(NamedTuple):
    custom_metadata_map: dict[str, str]


class ForeignSession:
    """What a session offers, answered by the session in another process; dropped there when it is dropped here."""

    def __init__(
        self,
        process: "ForeignProcess",
        model: bytes | Path,
        settings: SessionSettings,
        weights: Mapping[str, npt.NDArray[np.generic]],
    ) -> None:
        self._process = process
        facts = {
            "settings": settings._asdict(),
            "names": list(weights),
            "path": None if isinstance(model, bytes) else str(model),
        }
        sent = np.frombuffer(model if isinstance(model, bytes) else b"", np.uint8)
        self._facts, _ = process.run(_open_job, facts, [sent, *weights.values()])
        weakref.finalize(self, process.forget, _close_job, {"session": self._facts["session"]})

    def get_inputs(self) -> list[_Node]:
        """Name, shape and type of every input."""
        return [_Node(*node) for node in self._facts["inputs"]]

    def get_outputs(self) -> list[_Node]:
        """Name, shape and type of every output."""
        return [_Node(*node) for node in self._facts["outputs"]]

    def get_modelmeta(self) -> _ModelMeta:
        """The model's ``metadata_props``."""
        return _ModelMeta(self._facts["metadata"])

    def run(
        self, names: Sequence[str] | None, feeds: Mapping[str, npt.NDArray[np.generic]]
    ) -> list[npt.NDArray[np.generic]]:
        """The outputs of these names, or all, for one set of inputs.

        Raises:
            ModelError: It took too long, or the process died.
            JobFailed: The runtime refuses.
        """
        facts = {
            "session": self._facts["session"],
            "wanted": None if names is None else list(names),
            "names": list(feeds),
        }
        return self._process.run(_run_job, facts, list(feeds.values()))[1]


_SESSIONS: dict[int, "ort.InferenceSession"] = {}  # in the process of `foreign_work`
_NUMBERS = count()


def _open_job(facts: "Facts", arrays: "list[Array]") -> "tuple[Facts, list[Array]]":
    session = _loaded(
        facts["path"] or arrays[0].tobytes(),
        SessionSettings(**facts["settings"]),
        dict(zip(facts["names"], arrays[1:], strict=True)),
    )
    number = next(_NUMBERS)
    _SESSIONS[number] = session
    described = {
        end: [[node.name, node.shape, node.type] for node in nodes]
        for end, nodes in (("inputs", session.get_inputs()), ("outputs", session.get_outputs()))
    }
    metadata = session.get_modelmeta().custom_metadata_map
    return {"session": number, "metadata": metadata, **described}, []


def _run_job(facts: "Facts", arrays: "list[Array]") -> "tuple[Facts, list[Array]]":
    feeds = dict(zip(facts["names"], arrays, strict=True))
    values = _SESSIONS[facts["session"]].run(facts["wanted"], feeds)
    if not all(isinstance(value, np.ndarray | np.generic) for value in values):
        raise InputError("the model gives something else than tensors")
    return {}, [np.asarray(value) for value in values]


def _close_job(facts: "Facts", arrays: "list[Array]") -> "tuple[Facts, list[Array]]":
    _SESSIONS.pop(facts["session"], None)
    return {}, []


def single_input(session: "ort.InferenceSession") -> "ort.NodeArg":
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
    session: "ort.InferenceSession", images: npt.NDArray[np.float32], *, batch: int = 256
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
    session: "ort.InferenceSession", node: "ort.NodeArg", images: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    try:
        logits = session.run(None, {node.name: images})[0]
    except ModelpressError:
        raise
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


def run_feed(
    session: "ort.InferenceSession", feed: Mapping[str, npt.NDArray[np.generic]]
) -> dict[str, npt.NDArray[np.generic]]:
    """All outputs of one call by name.

    Args:
        session: The model.
        feed: A value for each of its inputs.

    Raises:
        InputError: They do not fit.
    """
    try:
        values = session.run(None, dict(feed))
    except ModelpressError:
        raise
    except Exception as error:  # onnxruntime's exception classes share no public base
        given = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in feed.items())
        wanted = ", ".join(f"{node.name} {node.type} {node.shape}" for node in session.get_inputs())
        raise InputError(
            f"ONNX Runtime rejects inputs of shape {given}; the model expects {wanted}: {error}"
        ) from error

    return {output.name: value for output, value in zip(session.get_outputs(), values, strict=True)}
