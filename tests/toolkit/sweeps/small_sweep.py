"""A sweep of two trials of a small network, and the command that runs it."""

import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import yaml

NETWORK = """
from torch import nn
def small():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)
    )
"""
QUICK = {"onnx": ["float"], "bench.batch": [1], "bench.threads": [1], "bench.rounds": 1}
PATIENCE_S = 600  # of a busy machine


def written(folder, *, network, epochs):
    """A grid of two trials in a folder, with its data; the network lies in a folder that workers see, too."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, 1200)
    images = draw.integers(0, 60, (1200, 1, 8, 8)) + 40 * labels[:, None, None, None]
    np.savez(folder / "data.npz", images=images.astype(np.uint8), labels=labels)
    (network / "network.py").write_text(NETWORK)
    recipe = {
        "data.source": str(folder / "data.npz"),
        "model.factory": f"{network / 'network.py'}:small",
        "prune.exclude": [],
        "train.epochs": 1,
        "train.padding": 0,
        "finetune.epochs": epochs,
        "finetune.batch": 8,
        "finetune.padding": 0,
        "run.device": "cpu",
        **QUICK,
    }
    sweep = {
        "set": recipe,
        "search": {"prune.sparsity": {"grid": [0.3, 0.6]}},
        "objectives": [{"measure": "validation"}, {"measure": "bytes", "at-most": 50_000}],
        "sampler": "grid",
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    return folder / "sweep.yaml"


@contextmanager
def driver(config, *options):
    """The command at work; killed at the end."""
    command = [sys.executable, "-m", "modelpress", "sweep", "-c", config, "-o", config.parent / "out"]
    process = subprocess.Popen(
        [*map(str, command), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
