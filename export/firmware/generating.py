"""From a model and the ranges of its activations to the sources of its firmware."""

from dataclasses import dataclass, replace

import numpy as np

from modelpress.export.choices import Arithmetic, Optimise
from modelpress.export.coding.code_table import CodeTable
from modelpress.export.errors import InputError
from modelpress.export.exits.declaring import without_exits
from modelpress.export.firmware.arena import Arena, plan_arena
from modelpress.export.firmware.by_value import goes_by_value
from modelpress.export.firmware.coded_weights import (
    CodedLayer,
    HuffmanInput,
    huffman,
    huffman_input,
    level_tables,
    packed,
    share_tables,
)
from modelpress.export.firmware.fusing import fuse_sums
from modelpress.export.firmware.model_source import SourceWriter
from modelpress.export.firmware.network import Conv, ConvValues, Network, Weights
from modelpress.export.firmware.pixels import pixel_tables
from modelpress.export.firmware.reading import read_network
from modelpress.export.firmware.room import Room, room_for
from modelpress.export.graphs.parts import metadata
from modelpress.export.onnx_flavours.int8 import plan
from modelpress.export.post_training.calibration import ActivationRanges
from modelpress.export.quantized import QuantizedModel

_FEW = 0.05  # of all products


@dataclass(frozen=True, kw_only=True)
class FirmwareOptions:
    """What is generated.

    Attributes:
        optimise: For flash, or for instructions.
        arithmetic: Float32 as ONNX Runtime rounds, or integers only.
    """

    optimise: Optimise = Optimise.SIZE
    arithmetic: Arithmetic = Arithmetic.FLOAT


@dataclass(frozen=True, eq=False)
class Firmware:
    """A network ready to be written.

    Attributes:
        network: What runs.
        arena: Where its activations lie.
        coded: The weights of each layer, by the name of what it makes.
        room: Of the decoder, behind the activations.
        options: As asked for.
        source: `model.c`.
        header: `model.h`.
        channel_bytes: Of the biases and factors of each layer, by the name of what it makes.
    """

    network: Network
    arena: Arena
    coded: dict[str, CodedLayer]
    room: Room
    options: FirmwareOptions
    source: str
    header: str
    channel_bytes: dict[str, int]

    @property
    def has_few_products(self) -> bool:
        """Whether layers that do not go by value take so few products that their kernels are best left out."""
        if self.options.optimise is not Optimise.SIZE:
            return False
        rest = total = 0
        for operator in self.network.operators:
            if isinstance(operator, Conv):
                read, made = (self.arena.planes[n] for n in (operator.sources[0], operator.output))
                run = (
                    int(np.count_nonzero(operator.weights.rows))
                    * made.activation.height
                    * made.activation.width
                )
                total += run
                if not goes_by_value(operator.weights, self.coded[operator.output], read, made):
                    rest += run
        return rest <= _FEW * total

    @property
    def is_integer(self) -> bool:
        """Whether there is no float in it."""
        return self.options.arithmetic is Arithmetic.INTEGER


def generate(
    model: QuantizedModel, ranges: ActivationRanges | None, options: FirmwareOptions | None = None
) -> Firmware:
    """Make the sources of a network; early exits are left out.

    Args:
        model: Graph and weights.
        ranges: Of its activations, see `modelpress.export.post_training.calibration`.
        options: For size, in float, if there are none.

    Raises:
        InputError: The activations are not calibrated.
        ModelError: Operators without a form in firmware, which are named; or sizes that are not fixed.
    """
    model = without_exits(model)
    options = options or FirmwareOptions()
    if ranges is None:
        raise InputError("firmware computes with 8-bit activations, whose ranges must be calibrated on data")
    read = read_network(plan(model, ranges))
    network = fuse_sums(replace(read, pixel_tables=pixel_tables(read.source, metadata(model.graph))))
    arena = plan_arena(network)
    layers = weights_of(network)
    coded = code_weights(layers, options.optimise)
    sources = {o.output: o.sources[0] for o in network.operators if o.output in layers}
    room = room_for(arena.size, [(w, coded[name], arena.planes[sources[name]]) for name, w in layers.items()])
    writer = SourceWriter(network, arena, coded, room, options.arithmetic is Arithmetic.INTEGER)
    source, header = writer.source(), writer.header()
    return Firmware(network, arena, coded, room, options, source, header, writer.channel_bytes)


def weights_of(network: Network) -> dict[str, Weights]:
    """The weights of all layers, by the name of what each makes."""
    return {o.output: o.weights for o in network.operators if isinstance(o, Conv | ConvValues)}


def code_weights(layers: dict[str, Weights], optimise: Optimise) -> dict[str, CodedLayer]:
    """Each layer in the smaller form, or in that which takes fewer instructions."""
    plain = {name: packed(weights.rows) for name, weights in layers.items()}
    if optimise is Optimise.SPEED:
        return plain

    found = {name: huffman_input(weights) for name, weights in layers.items()}
    inputs = {name: source for name, source in found.items() if source is not None}
    while True:
        coded = _huffman(inputs)
        # a layer that leaves makes the tables of those that stay better
        worse = [name for name, layer in coded.items() if layer.size >= plain[name].size]
        if not worse:
            return plain | coded
        inputs = {name: source for name, source in inputs.items() if name not in worse}


def _huffman(inputs: dict[str, HuffmanInput]) -> dict[str, CodedLayer]:
    tables: dict[str, CodeTable] = {}
    for group in {source.group for source in inputs.values()}:
        names = [name for name, source in inputs.items() if source.group == group]
        tables |= dict(zip(names, share_tables([inputs[n].mask_counts for n in names]), strict=True))
    return {name: huffman(source, tables[name], level_tables(source)) for name, source in inputs.items()}
