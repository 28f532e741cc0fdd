"""The inputs that a model declares."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx

from modelpress.benchmarks.subjects.indexed import rows_indexed
from modelpress.export.errors import InputError

UNNAMED = "?"  # a dynamic axis without a name


@dataclass(frozen=True)
class InputSpec:
    """One input as the file declares it.

    Attributes:
        dtype: NumPy's name of the element type.
        shape: Lengths of fixed axes, names of dynamic ones; None where even the rank is open.
        rows: Of the smallest table that its integers index; 0 where they index none, or nothing is known.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None
    rows: int = 0

    def __str__(self) -> str:
        axes = "any shape" if self.shape is None else f"({', '.join(map(str, self.shape))})"
        return f"{self.name} {self.dtype} {axes}"

    @property
    def has_dynamic_batch(self) -> bool:
        """Whether the first axis may have any length."""
        return bool(self.shape) and isinstance(self.shape[0], str)  # type: ignore[index]


def input_specs(model: onnx.ModelProto) -> list[InputSpec]:
    """The inputs a caller must give, in graph order: initializers listed among them have a value already.

    Raises:
        InputError: There is none, or one is no tensor of numbers, or can hold none.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    rows = rows_indexed(model)
    specs = [_spec(info, rows.get(info.name, 0)) for info in model.graph.input if info.name not in stored]
    if not specs:
        raise InputError("the model has no inputs: there is nothing to feed it with")
    return specs


def _spec(info: onnx.ValueInfoProto, rows: int) -> InputSpec:
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.elem_type:
        raise InputError(f"input {info.name} is no tensor; only tensors can be fed")

    kind = info.type.tensor_type
    if kind.elem_type == onnx.TensorProto.STRING:
        raise InputError(f"input {info.name} takes strings; only numbers can be fed from .npy files")

    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name)
    if not kind.HasField("shape"):
        return InputSpec(info.name, dtype, None, rows)

    spec = InputSpec(info.name, dtype, tuple(map(_axis, kind.shape.dim)), rows)
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
    suits = spec.shape is None or fits((1, *shape), (UNNAMED, *spec.shape[1:]))
    if spec.dtype != dtype or not suits:
        raise InputError(f"the model expects {spec}; the images of the data set are {dtype} (N{axes})")


def fits(shape: tuple[int, ...], declared: tuple[int | str, ...]) -> bool:
    """Whether an array of this shape can be given where that one is declared."""
    return len(shape) == len(declared) and all(
        isinstance(axis, str) or axis == length for length, axis in zip(shape, declared, strict=True)
    )
