"""A small classifier to bundle, and manifests made to fit whatever was changed."""

import hashlib
import json

import numpy as np

from modelpress.benchmarks.measures.accuracy import wilson_interval
from modelpress.export.quantized import QuantizedTensor
from tests.helpers.graph_builder import INPUT, GraphBuilder

IMAGES = np.random.default_rng(3).standard_normal((20, 3, 32, 32)).astype(np.float32)


def classifier(metadata):
    """A convolution and a linear layer, pruned, in 4 bits."""
    rng = np.random.default_rng(5)
    conv = QuantizedTensor(
        rng.integers(-7, 8, (6, 3, 4, 4)).astype(np.int8) * (rng.random((6, 3, 4, 4)) < 0.5),
        bits=4,
        scale=np.float32(0.1),
    )
    linear = QuantizedTensor(
        rng.integers(-7, 8, (10, 6 * 8 * 8)).astype(np.int8), bits=4, scale=np.float32(0.02)
    )
    builder = GraphBuilder("classifier", (3, 32, 32))
    x = builder.relu(builder.conv("conv", INPUT, conv, np.zeros(6, np.float32), stride=4, padding=0))
    x = builder.gemm("fc", builder.flatten(x), linear, np.zeros(10, np.float32))
    return builder.finish(x, n_outputs=10, metadata=metadata)


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_bytes())


def seal(folder, manifest):
    """Make the checksums fit whatever is in a folder."""
    for name, facts in manifest["files"].items():
        data = (folder / name).read_bytes()
        facts.update(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    data = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(data)
    digests = {name: facts["sha256"] for name, facts in manifest["files"].items()}
    digests["manifest.json"] = hashlib.sha256(data).hexdigest()
    (folder / "SHA256SUMS").write_text("".join(f"{digests[name]}  {name}\n" for name in sorted(digests)))


def claim_of_accuracy(dataset="cifar10"):
    """One that nothing contradicts."""
    return {
        "top1": 0.999,
        "n_images": 10_000,
        "interval": list(wilson_interval(0.999, 10_000)),
        "dataset": dataset,
        "fingerprint": "1f" * 32,
    }
