"""How wide the codes of each layer are, by a recipe."""

from modelpress.toolkit.compression.choosing import layers_chosen
from modelpress.toolkit.compression.quantization.quantizers import QuantizerSpec
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.recipe import QuantizeOptions


def exceptions(state: NetworkState, options: QuantizeOptions) -> dict[str, int | str]:
    """Width, or ``float``, of the layers that the recipe names.

    Raises:
        InputError: A name pattern matches no layer.
    """
    bits: dict[str, int | str] = {}
    for pattern, width in options.layers.items():
        bits.update(dict.fromkeys(layers_chosen(state, pattern), width))
    return bits


def spec_of(bits: int, options: QuantizeOptions) -> QuantizerSpec:
    """The grid that a recipe asks for, at some width."""
    return QuantizerSpec(
        bits,
        symmetric=options.symmetric,
        per_channel=options.per_channel,
        zero_point=options.zero_point,
        range=options.range,
        learned=options.learned,
    )
