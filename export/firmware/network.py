"""A quantized network as firmware runs it: activations of bytes, and operators from one to the next.

Codes are unsigned bytes, ``value = (code - zero) * scale``. There is one input at a time: no batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Int8Rows = npt.NDArray[np.int8]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Activation:
    """Planes of codes.

    Attributes:
        name: As in the graph.
        channels: Number of planes.
        height: Rows of a plane.
        width: Columns.
        scale: Of a code.
        zero: The code of 0.
    """

    name: str
    channels: int
    height: int
    width: int
    scale: np.float32
    zero: int

    @property
    def size(self) -> int:
        """Codes in all."""
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class Window:
    """How a kernel or a pool moves over planes."""

    height: int = 1
    width: int = 1
    stride_rows: int = 1
    stride_columns: int = 1
    pad_top: int = 0
    pad_left: int = 0
    pad_bottom: int = 0
    pad_right: int = 0
    dilation_rows: int = 1
    dilation_columns: int = 1


@dataclass(frozen=True, eq=False)
class Weights:
    """Rows of int8 weights, and what makes codes of their sums.

    Attributes:
        rows: Shape ``(outputs, inputs * height * width)``, of the inputs of one output.
        scale: Shape ``(outputs,)``: weight units per step.
        bias: Shape ``(outputs,)``, int32, in units of weight scale times input scale.
        window: Kernel and strides.
        inputs: Channels that one output reads.
        groups: Of channels.
        kind: Name of the operator in the graph.
        bits: Of the codes that the weights are made from; 8 where they were floats.
        parts: Shape ``(outputs,)``: what the scale is a multiple of for each output, if anything; see `pack_channels`.
    """

    rows: Int8Rows
    scale: FloatArray
    bias: npt.NDArray[np.int32]
    window: Window
    inputs: int
    groups: int
    kind: str
    bits: int
    parts: FloatArray | None = None

    @property
    def outputs(self) -> int:
        """Channels made."""
        return len(self.rows)


@dataclass(frozen=True)
class Operator:
    """One step.

    Attributes:
        name: Of the node.
        sources: Names of the activations read.
        output: Name of what is made.
    """

    name: str
    sources: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Bounded(Operator):
    """A step that makes codes between bounds: 0 and 255, or less where a Clip follows."""

    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Conv(Bounded):
    """Convolution or matrix product.

    Attributes:
        weights: What is multiplied.
        added: The sum behind it, if that is one with it; its other activation is the second source.
    """

    weights: Weights
    added: "Add | None" = None


@dataclass(frozen=True, eq=False)
class ConvValues(Operator):
    """A last matrix product, whose outputs are values and no codes."""

    weights: Weights


@dataclass(frozen=True)
class Add(Bounded):
    """Sum of two activations."""


@dataclass(frozen=True)
class Multiply(Bounded):
    """Product of two; the second may have one element for each channel."""


@dataclass(frozen=True)
class GlobalAverage(Bounded):
    """Mean of every plane."""


@dataclass(frozen=True)
class AveragePool(Bounded):
    """Means of windows, of whole ones or of what lies inside the planes."""

    window: Window
    with_pads: bool


@dataclass(frozen=True)
class MaxPool(Operator):
    """Largest codes of windows."""

    window: Window


@dataclass(frozen=True)
class Place:
    """Where an activation goes in the planes of another, by a table of 256 codes or as it is."""

    table: bytes | None = None
    channel: int = 0
    row: int = 0
    column: int = 0


@dataclass(frozen=True)
class Copy(Operator):
    """Each source by a table, or as it is, to its place: elementwise functions, Concat, Pad.

    Attributes:
        places: Of each source.
        is_partial: Whether codes are left over that stand for 0.
        kind: Name of the operator in the graph.
    """

    places: tuple[Place, ...]
    is_partial: bool
    kind: str


@dataclass(frozen=True)
class Values(Operator):
    """The values of an activation's codes: an output of the network."""


@dataclass(frozen=True)
class Network:
    """All of it.

    Attributes:
        source: The activation that enters.
        activations: By name.
        operators: In an order in which they can run.
        outputs: Length of the list of values that comes out.
        ending: What is done with them: nothing, ``Softmax`` or ``ArgMax``.
        pixel_tables: Shape ``(channels, 256)``: codes of 8-bit pixels; None where the model does not say what they are.
        notes: What a user should know.
    """

    source: Activation
    activations: dict[str, Activation]
    operators: Sequence[Operator]
    outputs: int
    ending: str = ""
    pixel_tables: npt.NDArray[np.uint8] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def has_whole_bytes(self) -> bool:
        """Whether all codes go from 0 to 255."""
        bounded = [o for o in self.operators if isinstance(o, Bounded)]
        bounded += [o.added for o in self.operators if isinstance(o, Conv) and o.added is not None]
        return all((o.low, o.high) == (0, 255) for o in bounded)
