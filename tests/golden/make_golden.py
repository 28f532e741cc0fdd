"""Writes the golden files of the present format version: run by hand, once, when a version is published.

python -m tests.golden.make_golden
"""

from pathlib import Path

import numpy as np

from modelpress.export.press.frame import VERSION
from modelpress.export.press.writing import encode_artifact
from modelpress.export.quantized import QuantizedModel, QuantizedTensor
from modelpress.export.tensor_spec import carrier_of
from tests.helpers.models import alike_model, small_model, sparse_model, typed_model
from tests.helpers.paths import GOLDEN
from tests.helpers.ways import every_way

PARTS = ("codes", "scale", "offset", "support", "channel_scale")
PREFIX = GOLDEN / f"v{VERSION[0]}.{VERSION[1]}"


def main() -> None:
    for name, model, effort in (
        ("small", small_model(), "default"),
        ("sparse", sparse_model(), "default"),
        ("max", sparse_model(), "max"),
        ("types", typed_model(), "default"),
        ("alike", alike_model(), "default"),
    ):
        artifact = Path(f"{PREFIX}-{name}.press")
        if artifact.exists():
            print(f"{artifact.name} exists; golden files are never rewritten")
            continue
        artifact.write_bytes(encode_artifact(model, effort=effort))
        np.savez(f"{PREFIX}-{name}.npz", **arrays_of(model))
    if not Path(f"{PREFIX}-blobs.npz").exists():
        blobs = {
            f"{name}|{number} {way}": np.frombuffer(writer.data(), np.uint8)
            for name, tensor in small_model().tensors.items()
            for way, (number, writer) in every_way(tensor).items()
        }
        np.savez(f"{PREFIX}-blobs.npz", **blobs)


def arrays_of(model: QuantizedModel) -> dict[str, np.ndarray]:
    """What a model holds, without the code that is tested: codes and grids, and the numbers that elements are."""
    arrays = {}
    for name, tensor in model.tensors.items():
        if isinstance(tensor, QuantizedTensor):
            parts = {part: getattr(tensor, part) for part in PARTS}
            arrays |= {f"{name}/{part}": array for part, array in parts.items() if array is not None}
        else:
            arrays[name] = carrier_of(tensor)
    return arrays


if __name__ == "__main__":
    main()
