"""Writes the golden files of the present format version: run by hand, once, when a version is published.

python -m tests.golden.make_golden
"""

from pathlib import Path

import numpy as np

from export.artifact import VERSION, encode_artifact
from export.encodings import encode_every_way
from tests.conftest import small_model, sparse_model
from toolkit.file_commands import unpack_file

PREFIX = Path(__file__).parent / f"v{VERSION[0]}.{VERSION[1]}"


def main() -> None:
    for name, model in (("small", small_model()), ("sparse", sparse_model())):
        artifact = Path(f"{PREFIX}-{name}.press")
        if artifact.exists():
            print(f"{artifact.name} exists; golden files are never rewritten")
            continue
        artifact.write_bytes(encode_artifact(model))
        unpack_file(artifact, Path(f"{PREFIX}-{name}.npz"))
    if not Path(f"{PREFIX}-blobs.npz").exists():
        blobs = {
            f"{name}|{encoding}": np.frombuffer(writer.data(), np.uint8)
            for name, tensor in small_model().tensors.items()
            for encoding, writer in encode_every_way(tensor).items()
        }
        np.savez(f"{PREFIX}-blobs.npz", **blobs)


if __name__ == "__main__":
    main()
