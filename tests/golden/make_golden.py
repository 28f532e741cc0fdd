"""Writes the golden files of the present format version: run by hand, once, when a version is published."""

import sys
from pathlib import Path

import numpy as np

from export.artifact import VERSION, encode_artifact
from export.encodings import encode_every_way
from tests.conftest import small_model
from toolkit.file_commands import unpack_file

HERE = Path(__file__).parent


def main() -> None:
    prefix = HERE / f"v{VERSION[0]}.{VERSION[1]}"
    artifact = Path(f"{prefix}-small.press")
    if artifact.exists():
        sys.exit(f"{artifact} exists; golden files are never rewritten")
    model = small_model()
    artifact.write_bytes(encode_artifact(model))
    unpack_file(artifact, Path(f"{prefix}-small.npz"))
    blobs = {}
    for name, tensor in model.tensors.items():
        for encoding, writer in encode_every_way(tensor).items():
            blobs[f"{name}|{encoding}"] = np.frombuffer(writer.data(), np.uint8)
    np.savez(f"{prefix}-blobs.npz", **blobs)


if __name__ == "__main__":
    main()
