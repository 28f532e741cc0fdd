"""Calibration inputs of models that take several inputs, or lengths that differ."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from modelpress.export.errors import InputError
from modelpress.export.post_training.calibration import Feed, bounded_batch
from modelpress.export.quantized import QuantizedModel
from modelpress.toolkit.data.array_rows import read_named

_BATCH = 32  # of arrays that are cut along their first axis


def load_feeds(path: Path | None, model: QuantizedModel, *, n_calls: int) -> list[Feed] | None:
    """Calls of a model from files of arrays called like its inputs.

    Args:
        path: A folder of ``.npz`` files, each a call; or one such file, whose arrays are cut along their first axis
            where all inputs have a batch of any size there.
        model: Its inputs tell what is expected.
        n_calls: How many calls at most, or entries along the first axis.

    Returns:
        None where the file holds one array alone, or the folder is that of a data set.

    Raises:
        InputError: A file cannot be read, or its arrays are called otherwise.
    """
    if path is None:
        return None

    inputs = {value.name: value for value in model.graph.graph.input if value.name not in model.tensors}
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        return [_named(file, inputs) for file in files[:n_calls]] if files else None
    if path.suffix == ".npz" and (len(inputs) > 1 or _holds(path, inputs)):
        return _cut(_named(path, inputs), model, inputs, n_calls)
    return None


def _holds(path: Path, inputs: Mapping[str, onnx.ValueInfoProto]) -> bool:
    """Whether the arrays of a file are called like the inputs, and are no pixels of images yet to be normalised."""
    arrays = read_named(path)
    return arrays.keys() == inputs.keys() and all(array.dtype != np.uint8 for array in arrays.values())


def _named(path: Path, inputs: Mapping[str, onnx.ValueInfoProto]) -> Feed:
    arrays = read_named(path)
    missing = [name for name in inputs if name not in arrays]
    if missing:
        raise InputError(
            f"{path}: holds {', '.join(arrays) or 'nothing'}; expected an array for each input of the model: "
            f"{', '.join(inputs)}"
        )
    return {name: arrays[name] for name in inputs}


def _cut(
    feed: Feed, model: QuantizedModel, inputs: Mapping[str, onnx.ValueInfoProto], n_calls: int
) -> list[Feed]:
    """Calls of few entries each where all arrays have one length and no input prescribes it; else one call."""
    lengths = {array.shape[0] if array.ndim else 0 for array in feed.values()}
    if len(lengths) != 1 or not all(_takes_any_batch(value) for value in inputs.values()):
        return [feed]

    last = min(lengths.pop(), n_calls)
    examples = {name: array.shape[1:] for name, array in feed.items()}
    made = [name for node in model.graph.graph.node for name in node.output]
    step = bounded_batch(model, examples, most=_BATCH, observed=made)
    return [
        {name: array[start : min(start + step, last)] for name, array in feed.items()}
        for start in range(0, last, step)
    ]


def _takes_any_batch(value: onnx.ValueInfoProto) -> bool:
    dims = value.type.tensor_type.shape.dim
    return len(dims) > 0 and not dims[0].HasField("dim_value")
