"""Encodings 10 and 20: every level coded bit by bit under mixed, adaptive contexts; see `coding.context_mixing`."""

from math import prod
from typing import TypeVar

from modelpress.export.coding.byte_parts import PartReader, PartWriter
from modelpress.export.coding.slabs import read_slabs, write_slabs
from modelpress.export.errors import DamagedArtifact
from modelpress.export.press.encodings.file_state import FileState
from modelpress.export.press.encodings.grid import read_grid
from modelpress.export.press.encodings.levels import LevelSink, LevelSource, Sink, source_of
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.tensor_spec import TensorSpec

_T = TypeVar("_T")
MAX_ROW_ELEMENTS = 1 << 20  # bounds what the coder keeps for each element of a row
_SLAB_ELEMENTS = 1 << 20  # the coder needs room for the worst case


def encode(tensor: QuantizedTensor | LevelSource, state: FileState, *, linked: bool = False) -> PartWriter:
    """Front and slabs of whole rows, under linked contexts or not; moves the model of `state` on."""
    source = source_of(tensor)
    writer = PartWriter()
    source.write_front(writer)
    _, inputs, taps = geometry(source.spec)

    slabs = []
    for start, stop in _row_slabs(source.spec):
        levels = source.levels(start, stop).reshape(-1, inputs, taps)
        slabs.append(
            state.mixing.encode(
                levels, kernel_width=_kernel_width(source.spec), linked=source.bounds if linked else None
            )
        )

    write_slabs(writer, slabs)
    return writer


def decode(reader: PartReader, spec: TensorSpec, state: FileState) -> QuantizedTensor:
    """Undo `encode`, with the model in the state it had then.

    Raises:
        DamagedArtifact: The blob contradicts itself or its spec.
    """
    check_rows(spec)
    return decode_levels(reader, LevelSink(read_grid(reader, spec)), state)


def decode_linked(reader: PartReader, spec: TensorSpec, state: FileState) -> QuantizedTensor:
    """Undo `encode` under linked contexts.

    Raises:
        DamagedArtifact: As for `decode`.
    """
    check_rows(spec)
    return decode_levels(reader, LevelSink(read_grid(reader, spec)), state, linked=True)


def check_rows(spec: TensorSpec) -> None:
    """Refuse rows that are too long.

    Raises:
        DamagedArtifact: As said.
    """
    if not holds(spec):
        raise DamagedArtifact(f"a row of shape {spec.shape} has more than {MAX_ROW_ELEMENTS:,} elements")


def decode_levels(reader: PartReader, sink: Sink[_T], state: FileState, *, linked: bool = False) -> _T:
    """What comes after the front.

    Raises:
        DamagedArtifact: As for `decode`.
    """
    spec = sink.spec
    _, inputs, taps = geometry(spec)
    bounds = _row_slabs(spec)
    for (start, stop), slab in zip(bounds, read_slabs(reader, len(bounds)), strict=True):
        shape = ((stop - start) // (inputs * taps), inputs, taps)
        levels = state.mixing.decode(
            slab,
            shape,
            kernel_width=_kernel_width(spec),
            max_level=max(map(abs, sink.bounds)),
            linked=sink.bounds if linked else None,
        )
        sink.put(start, levels.reshape(-1))

    return sink.tensor()


def holds(spec: TensorSpec) -> bool:
    """Whether this encoding holds tensors of this shape: their rows must not be too long."""
    _, inputs, taps = geometry(spec)
    return inputs * taps <= MAX_ROW_ELEMENTS


def geometry(spec: TensorSpec) -> tuple[int, int, int]:
    """Rows, inputs of each, and taps of each input.

    Example:
        >>> geometry(TensorSpec((16, 3, 5, 5), 1)), geometry(TensorSpec((10, 64), 1)), geometry(TensorSpec((7,), 1))
        ((16, 3, 25), (10, 64, 1), (1, 7, 1))
    """
    if len(spec.shape) < 2:
        return 1, spec.size, 1
    return spec.shape[0], spec.shape[1], prod(spec.shape[2:])


def _kernel_width(spec: TensorSpec) -> int:
    return max(spec.shape[-1], 1) if len(spec.shape) > 2 else 1


def _row_slabs(spec: TensorSpec) -> list[tuple[int, int]]:
    """First element and end of slabs of as many whole rows as fit, at least one."""
    rows, inputs, taps = geometry(spec)
    row = inputs * taps
    if spec.size == 0:
        return []
    step = max(_SLAB_ELEMENTS // row, 1)
    return [(start * row, min(start + step, rows) * row) for start in range(0, rows, step)]
