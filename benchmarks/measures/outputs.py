"""What a model gives for many examples: whatever it takes, and whatever comes out."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.export.runtime import run_feed

if TYPE_CHECKING:
    import onnxruntime as ort

AT_ONCE = 256
Array = npt.NDArray[Any]
Outputs = Array | Mapping[str, Array]


class Examples(Protocol):
    """Rows of one input, made when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of every number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | npt.NDArray[np.int64], /) -> Array: ...


def outputs_of(
    session: "ort.InferenceSession", inputs: Mapping[str, Examples], *, batch: int = AT_ONCE
) -> Outputs:
    """All outputs for all examples, some at a time; the only one as it is, several by name.

    A model whose batch axis is fixed gets batches of that size, the last one filled up by starting over.

    Args:
        session: The model.
        inputs: By name; a model with one input takes the only one, whatever it is called.
        batch: Examples at a time, where the model takes any number.

    Raises:
        InputError: They do not fit, or an output has no row per example, no numbers, or NaN.
    """
    names = named_inputs(session, inputs)
    n = len(next(iter(inputs.values())))
    if not n:
        raise InputError("the data set holds no examples to measure on")
    first = (session.get_inputs()[0].shape or [None])[0]
    exact = isinstance(first, int) and first > 0
    batch = first if isinstance(first, int) and first > 0 else batch
    parts: list[dict[str, Array]] = []

    for start in range(0, n, batch):
        wanted = np.arange(start, start + batch) % n if exact else np.arange(start, min(start + batch, n))
        found = run_feed(session, {name: inputs[own][wanted] for name, own in names.items()})
        parts.append({name: _rows(name, value, len(wanted)) for name, value in found.items()})

    joined = {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}
    return next(iter(joined.values())) if len(joined) == 1 else joined


def named_inputs(session: "ort.InferenceSession", inputs: Mapping[str, Examples]) -> dict[str, str]:
    """Which of the examples' inputs each input of the model gets.

    Raises:
        InputError: One is missing, or of another type or shape.
    """
    nodes = session.get_inputs()
    if len(nodes) == len(inputs) == 1:
        names = {nodes[0].name: next(iter(inputs))}
    else:
        missing = [node.name for node in nodes if node.name not in inputs]
        if missing:
            raise InputError(
                f"the model takes {', '.join(node.name for node in nodes)}; the data set holds {', '.join(inputs)}"
            )
        names = {node.name: node.name for node in nodes}
    for node in nodes:
        _check(node, inputs[names[node.name]])
    return names


_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)"}


def _check(node: Any, rows: Examples) -> None:
    expected, axes = _TYPES.get(str(rows.dtype), f"tensor({rows.dtype})"), node.shape
    fits = not axes or (
        len(axes) == len(rows.shape)
        and all(not isinstance(a, int) or a == n for a, n in zip(axes[1:], rows.shape[1:], strict=True))
    )
    if node.type != expected or not fits:
        shape = ", ".join(map(str, ("N", *rows.shape[1:])))
        raise InputError(
            f"the model expects {node.name} {node.type} {axes}; the data set holds {rows.dtype} ({shape})"
        )


def _rows(name: str, value: object, n: int) -> Array:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise InputError(f"output {name} is no array of numbers")
    if value.ndim < 1 or len(value) != n:
        raise InputError(f"output {name} has shape {value.shape} for {n} examples; expected a row for each")
    if not np.isfinite(value).all():
        raise InputError(f"output {name} holds NaN or infinity")
    return value
