"""What a model is fed with while it is timed: decided once, from the file, before anything runs.

One floating-point input whose first axis is the batch gets random numbers. Every other model (several inputs, token
ids, more dynamic axes) is fed with the user's own arrays, one ``.npy`` file per input: made-up token ids or lengths
would time a network on something that it never sees.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.errors import InputError
from modelpress.export.files.inputs import open_input

UNNAMED = "?"  # a dynamic axis without a name
_SEED = 0
_RANDOM = ("float16", "float32", "float64")  # element types that random numbers are made for
Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class InputSpec:
    """One input as the file declares it.

    Attributes:
        dtype: NumPy's name of the element type.
        shape: Lengths of fixed axes, names of dynamic ones; None where even the rank is open.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None

    def __str__(self) -> str:
        axes = "any shape" if self.shape is None else f"({', '.join(map(str, self.shape))})"
        return f"{self.name} {self.dtype} {axes}"

    @property
    def has_dynamic_batch(self) -> bool:
        """Whether the first axis may have any length."""
        return bool(self.shape) and isinstance(self.shape[0], str)  # type: ignore[index]


@dataclass(frozen=True)
class Feed:
    """The array for one input in one call.

    Attributes:
        file: Its ``.npy`` file, repeated or cut along the first axis to `shape`; empty for random numbers.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str = ""

    def array(self) -> Array:
        """Make it: the same numbers each time.

        Example:
            >>> Feed("x", "float32", (2, 3)).array().shape
            (2, 3)
        """
        if not self.file:
            return np.random.default_rng(_SEED).standard_normal(self.shape).astype(self.dtype)
        stored = np.load(self.file, allow_pickle=False).astype(self.dtype, copy=False)
        if stored.shape == self.shape:
            return np.ascontiguousarray(stored)
        return np.ascontiguousarray(stored[np.arange(self.shape[0]) % len(stored)])


@dataclass(frozen=True)
class InputPlan:
    """All calls that one model is timed with.

    Attributes:
        feeds: By batch size.
        note: Why these are not the batch sizes asked for; empty where they are.
    """

    feeds: Mapping[int, list[Feed]]
    note: str = ""


def input_specs(model: onnx.ModelProto) -> list[InputSpec]:
    """The inputs a caller must give, in graph order: initializers listed among them have a value already.

    Raises:
        InputError: There is none, or one is no tensor of numbers, or can hold none.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    specs = [_spec(info) for info in model.graph.input if info.name not in stored]
    if not specs:
        raise InputError("the model has no inputs: there is nothing to feed it with")
    return specs


def _spec(info: onnx.ValueInfoProto) -> InputSpec:
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.elem_type:
        raise InputError(f"input {info.name} is no tensor; only tensors can be fed")

    kind = info.type.tensor_type
    if kind.elem_type == onnx.TensorProto.STRING:
        raise InputError(f"input {info.name} takes strings; only numbers can be fed from .npy files")

    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name)
    if not kind.HasField("shape"):
        return InputSpec(info.name, dtype, None)

    spec = InputSpec(info.name, dtype, tuple(map(_axis, kind.shape.dim)))
    if 0 in (spec.shape or ()):
        raise InputError(
            f"input {spec} has an axis of length 0, so there is nothing to run; in the file, give the axis its length, "
            "or a name if any length will do"
        )

    return spec


def _axis(dim: onnx.TensorShapeProto.Dimension) -> int | str:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    return str(dim.dim_param) or UNNAMED


def check_names(given: Iterable[str], models: Iterable[Sequence[InputSpec]]) -> None:
    """Every array must be for an input of at least one model.

    Raises:
        InputError: One is for none; the inputs there are are named.
    """
    known = {spec.name: spec for specs in models for spec in specs}
    for name in given:
        if name not in known:
            inputs = "; ".join(map(str, known.values()))
            raise InputError(f"--input {name}=…: no model has an input of this name; there are: {inputs}")


def check_takes_images(specs: Sequence[InputSpec], shape: Sequence[int], *, dtype: str = "float32") -> None:
    """Whether a model can be given batches of images, or other examples, of this shape, the batch axis left out.

    Raises:
        InputError: It cannot; says what it takes.
    """
    if len(specs) > 1:
        raise InputError(
            f"the model has {len(specs)} inputs ({'; '.join(map(str, specs))}); images alone cannot be classified"
        )

    (spec,) = specs
    axes = "".join(f", {length}" for length in shape)
    # the batch axis is no matter here
    fits = spec.shape is None or _fits((1, *shape), (UNNAMED, *spec.shape[1:]))
    if spec.dtype != dtype or not fits:
        raise InputError(f"the model expects {spec}; the images of the data set are {dtype} (N{axes})")


def plan_inputs(
    file: str, specs: Sequence[InputSpec], given: Mapping[str, Path], batches: Sequence[int]
) -> InputPlan:
    """Decide what every call is fed with.

    Args:
        file: The model's name, for messages.
        specs: Its inputs.
        given: ``.npy`` files by input name; those for other models are left out.
        batches: Batch sizes asked for. A model that can run only one is timed at that one.

    Raises:
        InputError: Arrays are missing, unreadable, or of another type or shape than the input.

    Example:
        >>> images = InputSpec("images", "float32", ("N", 3, 4, 4))
        >>> [feeds[0].shape for feeds in plan_inputs("m", [images], {}, (1, 8)).feeds.values()]
        [(1, 3, 4, 4), (8, 3, 4, 4)]
    """
    missing = [spec for spec in specs if spec.name not in given]
    if missing:
        reason = _why_arrays_are_needed(specs)
        if reason:
            options = " ".join(f"--input {spec.name}=FILE.npy" for spec in specs)
            raise InputError(f"{file}: {reason}: {'; '.join(map(str, specs))}. Give arrays: {options}")
        return _random_plan(file, specs[0], batches)

    arrays = {spec.name: _checked_array(file, spec, given[spec.name]) for spec in specs}
    return _given_plan(file, specs, given, arrays, batches)


def _why_arrays_are_needed(specs: Sequence[InputSpec]) -> str:
    """Empty where random numbers will do."""
    if len(specs) > 1:
        return f"the model has {len(specs)} inputs"

    (spec,) = specs
    if spec.dtype not in _RANDOM:
        return f"random numbers do not suit an input of type {spec.dtype}"
    if spec.shape is None:
        return "the input's shape is open"

    # the batch axis is ours to choose, no other is
    dynamic = [str(axis) for axis in spec.shape[1:] if isinstance(axis, str)]
    return f"the input has dynamic axes besides the batch ({', '.join(dynamic)})" if dynamic else ""


def _random_plan(file: str, spec: InputSpec, batches: Sequence[int]) -> InputPlan:
    fixed = tuple(axis for axis in (spec.shape or ())[1:] if isinstance(axis, int))
    if spec.has_dynamic_batch:
        return InputPlan({batch: [Feed(spec.name, spec.dtype, (batch, *fixed))] for batch in batches})
    shape = tuple(axis for axis in spec.shape or () if isinstance(axis, int))
    return _single_batch(file, [Feed(spec.name, spec.dtype, shape)], batches, "its batch axis is fixed")


def _given_plan(
    file: str,
    specs: Sequence[InputSpec],
    given: Mapping[str, Path],
    arrays: Mapping[str, Array],
    batches: Sequence[int],
) -> InputPlan:
    """Arrays along dynamic first axes are cut or repeated, if they all have the same length there."""
    whole = [Feed(s.name, s.dtype, arrays[s.name].shape, str(given[s.name])) for s in specs]
    lengths = {len(arrays[spec.name]) for spec in specs if spec.has_dynamic_batch}
    if not lengths:
        return _single_batch(file, whole, batches, "its batch axis is fixed")
    if len(lengths) > 1:
        return _single_batch(
            file, whole, batches, "the arrays differ in length, so they are used as they are"
        )

    return InputPlan(
        {
            batch: [
                Feed(feed.name, feed.dtype, (batch, *feed.shape[1:]), feed.file)
                if spec.has_dynamic_batch
                else feed
                for spec, feed in zip(specs, whole, strict=True)
            ]
            for batch in batches
        }
    )


def _single_batch(file: str, feeds: list[Feed], batches: Sequence[int], reason: str) -> InputPlan:
    batch = feeds[0].shape[0] if feeds[0].shape else 1
    note = "" if tuple(batches) == (batch,) else f"{file}: {reason}: timed at batch {batch} only"
    return InputPlan({batch: feeds}, note)


def _checked_array(file: str, spec: InputSpec, path: Path) -> Array:
    array = _read_array(path)
    where = f"--input {spec.name}={path}"
    if array.dtype.newbyteorder("=").name != spec.dtype:
        raise InputError(
            f"{where}: holds {array.dtype.name}; {file} expects {spec.dtype}: save array.astype({spec.dtype!r})"
        )
    if spec.shape is not None and not _fits(array.shape, spec.shape):
        raise InputError(f"{where}: has shape {array.shape}; {file} expects {spec}")
    if array.size == 0:
        raise InputError(f"{where}: is empty, shape {array.shape}")

    return array


def _fits(shape: tuple[int, ...], declared: tuple[int | str, ...]) -> bool:
    return len(shape) == len(declared) and all(
        isinstance(axis, str) or axis == length for length, axis in zip(shape, declared, strict=True)
    )


def _read_array(path: Path) -> Array:
    try:
        with open_input(path) as file:
            array = np.load(file, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise InputError(f"{path}: declares more numbers than the memory can hold; is it damaged?") from error
    except (ValueError, EOFError, OverflowError, BadZipFile) as error:
        raise InputError(f"{path}: is no .npy file of numbers: {error}") from error

    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: holds several arrays; expected one, as numpy.save writes it")

    return array
