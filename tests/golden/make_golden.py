"""Writes the golden files of the present format version: run by hand, once, when a version is published.

python -m tests.golden.make_golden
"""

from pathlib import Path

import numpy as np

from modelpress.export.press.frame import VERSION
from modelpress.export.press.writing import encode_artifact
from modelpress.toolkit.model_files.unpacking import unpack_file
from tests.helpers.models import small_model, sparse_model
from tests.helpers.paths import GOLDEN
from tests.helpers.ways import every_way

PREFIX = GOLDEN / f"v{VERSION[0]}.{VERSION[1]}"


def main() -> None:
    for name, model, effort in (
        ("small", small_model(), "default"),
        ("sparse", sparse_model(), "default"),
        ("max", sparse_model(), "max"),
    ):
        artifact = Path(f"{PREFIX}-{name}.press")
        if artifact.exists():
            print(f"{artifact.name} exists; golden files are never rewritten")
            continue
        artifact.write_bytes(encode_artifact(model, effort=effort))
        unpack_file(artifact, Path(f"{PREFIX}-{name}.npz"))
    if not Path(f"{PREFIX}-blobs.npz").exists():
        blobs = {
            f"{name}|{number} {way}": np.frombuffer(writer.data(), np.uint8)
            for name, tensor in small_model().tensors.items()
            for way, (number, writer) in every_way(tensor).items()
        }
        np.savez(f"{PREFIX}-blobs.npz", **blobs)


if __name__ == "__main__":
    main()
