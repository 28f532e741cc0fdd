"""One ONNX model per way of storing the weights in it; each flavour is a file and a line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO

import onnx

from export.atomic_file import atomic_writer
from export.errors import InputError
from export.onnx_check import check_graph
from export.onnx_flavours import float32
from export.quantized import QuantizedModel


@dataclass(frozen=True)
class Flavour:
    """Two ways to the same bytes.

    Attributes:
        emit: The model in memory.
        write: Straight into a file, without the whole model in memory; returns the number of bytes.
    """

    emit: Callable[[QuantizedModel], onnx.ModelProto]
    write: Callable[[IO[bytes], QuantizedModel], int]


FLAVOURS: Mapping[str, Flavour] = MappingProxyType({"float": Flavour(float32.emit, float32.write)})


def emit(model: QuantizedModel, *, flavour: str) -> onnx.ModelProto:
    """The ONNX model of a flavour, checked.

    Raises:
        InputError: The flavour is unknown.
        ModelError: The graph is no valid ONNX model.
    """
    chosen = _flavour(flavour)
    check_graph(model)
    return chosen.emit(model)


def write_onnx(path: Path, model: QuantizedModel, *, flavour: str) -> int:
    """Write the ONNX file of a flavour, whole or not at all; returns its size in bytes.

    The model is checked first; one tensor at a time is in memory.

    Raises:
        InputError: The flavour is unknown, or the file cannot be written.
        ModelError: The graph is no valid ONNX model, or the file would exceed 2 GiB.
    """
    chosen = _flavour(flavour)
    check_graph(model)
    with atomic_writer(path) as file:
        return chosen.write(file, model)


def _flavour(name: str) -> Flavour:
    """One of `FLAVOURS`.

    Raises:
        InputError: The name is unknown.
    """
    if name not in FLAVOURS:
        raise InputError(f"flavour {name!r} is unknown; choose one of: {', '.join(FLAVOURS)}")
    return FLAVOURS[name]
