"""How large the file of a network in training would be."""

from dataclasses import replace

import torch

from modelpress.export.press.writing import encode_artifact
from modelpress.toolkit.compression.freeze import freeze_state
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.compression.quantization.half_parameters import round_parameters_to_half
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.recipe import PackOptions


def file_size(state: NetworkState, network: CompressedNetwork, options: PackOptions) -> int:
    """Bytes of the `.press` file that the network would make as it is now; it is left as it is.

    Args:
        state: What `network` was made of.
        network: In training.
        options: How the file is written; scales and biases count as float16 where that is allowed and fits.
    """
    kept = {name: value.clone() for name, value in network.network.state_dict().items()}
    mode = network.training
    half = options.float16_parameters and round_parameters_to_half(network.network)
    facts = {"parameters": {"precision": "float16"}} if half else {}
    try:
        now = replace(state, grids=network.kept_grids(), history={**state.history, **facts})
        return len(encode_artifact(freeze_state(now), effort=options.effort))
    finally:
        with torch.no_grad():
            for name, value in network.network.state_dict().items():
                value.copy_(kept[name])
        network.train(mode)
