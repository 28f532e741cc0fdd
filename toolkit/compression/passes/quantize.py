"""Pass: give every layer the grid that its weights will lie on."""

from dataclasses import replace

from modelpress.toolkit.compression.passes.pricing import quantized_at_price
from modelpress.toolkit.compression.passes.widths import exceptions, spec_of
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.networks.layers import weight_layers
from modelpress.toolkit.recipe import QuantizeOptions


def quantize(state: NetworkState, work: Work) -> NetworkState:
    """Put the grids of the recipe's section `quantize` into the forward pass; the weights themselves stay floats.

    Raises:
        InputError: A name pattern matches no layer.
    """
    recipe = work.recipe
    work.progress.stage("quantize")
    priced = recipe.quantize.priced
    quantized = quantized_at_price(state, work) if priced else with_quantizers(state, recipe.quantize)

    # a schedule, of the pruning or of the grids, makes this point one with the end of the finetuning
    if recipe.prune.scheduled:
        work.progress.note(
            f"weights are removed during the first {recipe.prune.epochs} epochs of the finetuning"
        )
    elif not recipe.quantize.after:
        work.watch("quantized", quantized)
    return quantized


def with_quantizers(state: NetworkState, options: QuantizeOptions) -> NetworkState:
    """Give every layer its quantizer, and those grids that do not follow the weights their first values.

    Raises:
        InputError: A name pattern matches no layer.
    """
    bits: dict[str, int | str] = dict.fromkeys(weight_layers(state.network), options.bits)
    bits |= exceptions(state, options)

    quantizers = {name: spec_of(int(width), options) for name, width in bits.items() if width != "float"}
    quantized = replace(state, quantizers=quantizers, grids={}, history={**state.history, "quantize": bits})
    return replace(quantized, grids=quantized.compressed().kept_grids())
