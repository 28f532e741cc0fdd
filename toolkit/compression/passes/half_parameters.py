"""Pass: scales and biases in float16, if that costs no accuracy."""

import copy
from dataclasses import replace

from modelpress.toolkit.compression.quantization.half_parameters import round_parameters_to_half
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.training.evaluate import validation_figure


def half_parameters(state: NetworkState, work: Work) -> NetworkState:
    """Scales and biases in float16, if the recipe allows it and no accuracy is lost on the held-out split.

    Both accuracies go into the history; without a held-out split nothing can be judged and nothing changes.
    """
    network = copy.deepcopy(state.network)
    if not work.recipe.pack.float16_parameters or not round_parameters_to_half(network):
        return state

    before = validation_figure(state.compressed(), work.data, work.device)
    if before is None:
        work.progress.note(
            "scales and biases stay in float32: there are no validation images to judge float16 by"
        )
        return state

    halved = replace(state, network=network)
    after = validation_figure(halved.compressed(), work.data, work.device)
    assert after is not None  # the same split
    metric = work.data.metric
    kept = "float32" if metric.better(before, after) else "float16"
    work.progress.note(
        f"scales and biases in {kept}: validation {metric.shown(before)} in float32, {metric.shown(after)} in float16"
    )
    figure = "validation_top1" if work.data.classifies else "validation"
    facts = {"precision": kept, figure: {"float32": before, "float16": after}}
    return replace(halved if kept == "float16" else state, history={**state.history, "parameters": facts})
