"""What every file says about its origin: the `metadata_props` of the artifact and of the ONNX models."""

import json
from importlib.metadata import version

from modelpress.toolkit.compression.state import InputContract, NetworkState


def provenance(state: NetworkState) -> dict[str, str]:
    """What the model is, what was done to it, and what input it expects; structured values are JSON."""
    facts: dict[str, object] = {
        "modelpress.version": version("modelpress"),
        "modelpress.arch": state.architecture,
        **_compression(state),
    }
    if state.contract is not None:
        facts |= _input(state.contract)
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def _compression(state: NetworkState) -> dict[str, object]:
    facts: dict[str, object] = {}

    if state.masks:
        prune = state.history.get("prune", {})
        told = ("method", "prunable", "removed")
        facts["modelpress.prune"] = {key: prune[key] for key in told if key in prune}

    if state.quantizers:
        kinds = {(q.bits, q.symmetric, q.per_channel) for q in state.quantizers.values()}
        facts["modelpress.quantize"] = [
            {"bits": bits, "symmetric": symmetric, "per_channel": per_channel}
            for bits, symmetric, per_channel in sorted(kinds)
        ]

    if state.parameter_precision != "float32":
        facts["modelpress.parameters"] = state.parameter_precision
    return facts


def _input(contract: InputContract) -> dict[str, object]:
    known = {} if contract.dataset is None else {"modelpress.dataset": contract.dataset}
    named = {"modelpress.classes": contract.class_names} if contract.class_names else {}
    return {
        **known,
        **named,
        "modelpress.input": {
            "layout": "NCHW, RGB, (pixel / 255 - mean) / std",
            "mean": contract.mean,
            "std": contract.std,
        },
    }
