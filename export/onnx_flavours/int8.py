"""Flavour `int8`: integer arithmetic, as a graph of QuantizeLinear and DequantizeLinear that ONNX Runtime fuses.

Weights are int8 with one scale per output channel, activations uint8 with ranges from calibration. Convolutions
become QLinearConv, residual additions QLinearAdd, pools and matrix products their integer kernels; a last matrix
product gives float logits.

Source: Jacob et al. 2018, arXiv:1712.05877; the arrangement follows what ONNX Runtime fuses on x86.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.export.errors import ModelError
from modelpress.export.graphs.batch_norm import fold_batch_norm
from modelpress.export.graphs.cleaning.constant_identities import without_constant_identities
from modelpress.export.graphs.parts import opset_of
from modelpress.export.onnx_flavours.given_grids import without_given_grids
from modelpress.export.onnx_flavours.int8_graph import QdqWriter, Range, searched_weights
from modelpress.export.onnx_flavours.int8_reasons import FloatIsland, explained, islands_of
from modelpress.export.onnx_flavours.int8_regions import Regions, find_regions
from modelpress.export.onnx_flavours.int8_weights import INT8_LIMIT, REDUCED_LIMIT, Int8Weight, SearchedWeight
from modelpress.export.quantized import QuantizedModel

__all__ = [
    "Int8Layer",
    "Int8Plan",
    "Int8Planner",
    "Int8Weight",
    "activations_to_calibrate",
    "float_islands",
    "plan",
]

MIN_OPSET = 13  # the first with a scale per channel


@dataclass(frozen=True)
class Int8Layer:
    """A node that computes in integers.

    Attributes:
        name: Its own, or without one that of what it makes.
        operator: Its type.
        inputs: The activations it reads as integers.
        output: What it hands on, behind what is merged into it; a float of this name in the float model.
        codes: The uint8 tensor of `output` and its scale and zero point; None where it gives floats.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    output: str
    codes: tuple[str, str, str] | None


@dataclass(frozen=True, eq=False)
class Int8Plan:
    """A quantized graph and its tensors; how the int8 weights are stored is left open.

    Attributes:
        graph: QDQ nodes in place; initializers are missing.
        weights: By the name of the int8 tensor in the graph, which is to be made from it.
        tensors: All other initializers.
        notes: What stays in float, and why.
        layers: What computes in integers, in the order of the graph.
    """

    graph: onnx.ModelProto
    weights: dict[str, Int8Weight]
    tensors: dict[str, npt.NDArray[np.generic]]
    notes: list[str]
    layers: list[Int8Layer]


def activations_to_calibrate(model: QuantizedModel, exclude: Collection[str] = ()) -> list[str]:
    """Names of the activations whose ranges `plan` needs with these exclusions.

    Raises:
        InputError: Nothing is called like an exclusion.
        ModelError: The model's opset is too old, or nothing in it computes in integers.
    """
    return Int8Planner.of(model, exclude=exclude).activations


def float_islands(model: QuantizedModel) -> list[FloatIsland]:
    """What `plan` leaves in float, operator by operator and reason by reason."""
    simplified = _simplified(model)
    return list(islands_of(find_regions(simplified), simplified))


def plan(
    model: QuantizedModel,
    ranges: Mapping[str, Range],
    *,
    reduce_range: bool = False,
    exclude: Collection[str] = (),
) -> Int8Plan:
    """Arrange the graph and choose all scales.

    Args:
        model: Graph and weights, quantized or float.
        ranges: Low and high of every activation of `activations_to_calibrate`, 0 among them.
        reduce_range: Weights in 7 bits, -63 to 63. On x86 CPUs without VNNI, sums of two products of uint8 and
            int8 saturate at 16 bits; these cannot.
        exclude: What stays in float: operators, and names of nodes or of what they make.

    Raises:
        InputError: Nothing is called like an exclusion.
        ModelError: The opset is older than 13, nothing in the graph computes in integers, or a range is missing
            or impossible.
    """
    return Int8Planner.of(model, reduce_range=reduce_range, exclude=exclude).plan(ranges)


@dataclass(frozen=True, eq=False)
class Int8Planner:
    """Plans one model for any number of ranges: what does not hang on them is found once.

    Attributes:
        model: Simplified.
        regions: What of it computes in integers.
        limit: Of the int8 weights.
    """

    model: QuantizedModel
    regions: Regions
    limit: int

    @classmethod
    def of(
        cls, model: QuantizedModel, *, reduce_range: bool = False, exclude: Collection[str] = ()
    ) -> "Int8Planner":
        """Find what computes in integers; as for the function `plan`.

        Raises:
            InputError: Nothing is called like an exclusion.
            ModelError: The model's opset is too old, or nothing in it computes in integers.
        """
        simplified = _simplified(model)
        limit = REDUCED_LIMIT if reduce_range else INT8_LIMIT
        return cls(simplified, _regions(simplified, exclude), limit)

    @property
    def activations(self) -> list[str]:
        """Names of the activations whose ranges `plan` needs."""
        return self.regions.quantized

    @cached_property
    def _searched(self) -> dict[str, SearchedWeight]:
        return searched_weights(self.model, self.regions, limit=self.limit)

    def plan(self, ranges: Mapping[str, Range]) -> Int8Plan:
        """Arrange the graph and choose all scales; as the function `plan`.

        Raises:
            ModelError: A weight is not finite, or a range is missing or impossible.
        """
        _check_ranges(self.regions, ranges)
        writer = QdqWriter(self.model, self.regions, ranges, self._searched)
        graph = writer.write()
        layers = _layers(self.model, self.regions, writer)
        return Int8Plan(graph, writer.weights, writer.tensors, self.regions.notes, layers)


def _layers(model: QuantizedModel, regions: Regions, writer: QdqWriter) -> list[Int8Layer]:
    codes = writer.codes()
    return [
        Int8Layer(
            node.name or node.output[0],
            node.op_type,
            inputs=tuple(name for name in node.input if name in codes),
            output=regions.tails[place],
            codes=codes.get(regions.tails[place]),
        )
        for place, node in enumerate(model.graph.graph.node)
        if place in regions.weighted or place in regions.arithmetic
    ]


def _simplified(model: QuantizedModel) -> QuantizedModel:
    return fold_batch_norm(without_constant_identities(without_given_grids(model)))


def _regions(model: QuantizedModel, exclude: Collection[str]) -> Regions:
    opset = opset_of(model.graph)
    if opset < MIN_OPSET:
        raise ModelError(
            f"the model has opset {opset}; flavour int8 needs {MIN_OPSET} or newer, for scales per channel; "
            "convert the model with onnx.version_converter, or take flavour float, which works with any opset"
        )

    regions = explained(find_regions(model, exclude), model)
    if not regions.weighted:
        raise ModelError(
            "nothing in the graph can be computed in int8: "
            f"{regions.obstacle or 'there is no Conv, Gemm or MatMul with a constant weight'}; "
            "take flavour float or weight-only"
        )
    return regions


def _check_ranges(regions: Regions, ranges: Mapping[str, Range]) -> None:
    for name in regions.quantized:
        if name not in ranges:
            raise ModelError(
                f"{name}: its range is missing; calibrate all of activations_to_calibrate(model)"
            )

        low, high = ranges[name]
        if not (np.isfinite(low) and np.isfinite(high) and low <= 0 <= high):
            raise ModelError(
                f"{name}: its range is {low} to {high}; expected finite bounds with 0 among them"
            )
