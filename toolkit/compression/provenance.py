"""What every file says about its origin: the `metadata_props` of the artifact and of the ONNX models."""

import json

from modelpress import __version__
from modelpress.export.post_training.calibration import INPUT_METADATA
from modelpress.toolkit.compression.state import InputContract, NetworkState
from modelpress.toolkit.data.measured_set import DATASET_METADATA, SPLITS_METADATA
from modelpress.toolkit.data.network_input import VALUES_METADATA


def provenance(state: NetworkState) -> dict[str, str]:
    """What the model is, what was done to it, and what input it expects; structured values are JSON."""
    facts: dict[str, object] = {
        "modelpress.version": __version__,
        "modelpress.arch": _shown(state.architecture),
        **_compression(state),
    }
    if state.contract is not None:
        facts |= _input(state.contract)
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def _shown(architecture: str) -> str:
    """Without the folders of this machine, where it is made by a file of the user's."""
    return architecture.rpartition("/")[2] if architecture.startswith("/") else architecture


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
    known: dict[str, object] = {} if contract.dataset is None else {DATASET_METADATA: contract.dataset}
    if contract.class_names:
        known["modelpress.classes"] = contract.class_names
    if contract.own is not None:
        known[SPLITS_METADATA] = {
            key: value for key, value in contract.own.items() if key not in ("pixels", "inputs")
        }
    if not contract.mean:
        return known

    rule = {"mean": contract.mean, "std": contract.std}
    if not contract.of_pixels:
        return {**known, VALUES_METADATA: {"layout": "(value - mean) / std, along the second axis", **rule}}
    colours = {1: "grey", 3: "RGB"}.get(len(contract.mean), f"{len(contract.mean)} channels")
    return {**known, INPUT_METADATA: {"layout": f"NCHW, {colours}, (pixel / 255 - mean) / std", **rule}}
