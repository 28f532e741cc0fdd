"""Tensors that are made when asked for, and what is known of them before."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import ModelError, NoSuchTensor
from modelpress.export.quantized import Tensor, dense_array
from modelpress.export.shown import some_names
from modelpress.export.tensor_spec import ONNX_TYPES, TensorSpec


class LazyTensors(Mapping[str, Tensor]):
    """A mapping that makes a tensor at each access, keeps none, and knows shape and type of all beforehand.

    A name that it does not hold is a `NoSuchTensor`, which tells the nearest.
    """

    def __getitem__(self, name: str) -> Tensor:
        """One tensor.

        Raises:
            NoSuchTensor: There is none of this name.
        """
        if name not in self:
            raise NoSuchTensor(name, self)
        return self._make(name)

    @abstractmethod
    def __contains__(self, name: object) -> bool: ...

    @abstractmethod
    def _make(self, name: str) -> Tensor:
        """One of the tensors, anew."""

    def __repr__(self) -> str:
        """One line; no tensor is made for it."""
        return f"{len(self)} tensors, made when asked for: {some_names(self)}"

    def spec(self, name: str) -> TensorSpec:
        """Shape and type of a tensor as the ONNX model has it, without making it.

        Raises:
            NoSuchTensor: There is none of this name.
        """
        if name not in self:
            raise NoSuchTensor(name, self)
        return self._spec(name)

    def dense(self, name: str) -> npt.NDArray[np.generic]:
        """The array an unaware runtime needs, without the codes where that is quicker.

        Raises:
            NoSuchTensor: There is none of this name.
        """
        return dense_array(self[name])

    @abstractmethod
    def _spec(self, name: str) -> TensorSpec:
        """Shape and type of one of the tensors."""


def dense_of(tensors: Mapping[str, Tensor], name: str) -> npt.NDArray[np.generic]:
    """The dense array of a tensor; see `LazyTensors.dense`."""
    return tensors.dense(name) if isinstance(tensors, LazyTensors) else dense_array(tensors[name])


def spec_of(tensors: Mapping[str, Tensor], name: str) -> TensorSpec:
    """Shape and type of the dense array of a tensor.

    Raises:
        ModelError: Its type has no place in ONNX.

    Example:
        >>> spec_of({"w": np.zeros((2, 3), np.float16)}, "w")
        TensorSpec(shape=(2, 3), onnx_type=10)
    """
    if isinstance(tensors, LazyTensors):
        return tensors.spec(name)

    tensor = tensors[name]
    dtype = np.dtype(tensor.dtype).newbyteorder("<")
    if dtype not in ONNX_TYPES:
        raise ModelError(f"{name}: type {dtype} cannot be stored in an ONNX model")

    return TensorSpec(tuple(map(int, tensor.shape)), ONNX_TYPES[dtype])


def some_tensors(tensors: Mapping[str, Tensor], names: Sequence[str]) -> Mapping[str, Tensor]:
    """Some of a model's tensors, in this order; lazy ones stay lazy.

    Example:
        >>> list(some_tensors({"a": np.zeros(1), "b": np.zeros(1)}, ["b"]))
        ['b']
    """
    if isinstance(tensors, LazyTensors):
        return _Some(tensors, names)
    return {name: tensors[name] for name in names}


class _Some(LazyTensors):
    """Some of other tensors."""

    def __init__(self, tensors: LazyTensors, names: Sequence[str]) -> None:
        self._tensors, self._names = tensors, dict.fromkeys(names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def dense(self, name: str) -> npt.NDArray[np.generic]:
        """See `LazyTensors.dense`."""
        if name not in self:
            raise NoSuchTensor(name, self)
        return self._tensors.dense(name)

    def _make(self, name: str) -> Tensor:
        return self._tensors[name]

    def _spec(self, name: str) -> TensorSpec:
        return self._tensors.spec(name)
