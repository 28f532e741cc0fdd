#!/usr/bin/env python3
"""Check that model.onnx computes the reference outputs here: python port/check.py. Needs numpy and onnxruntime."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run every call of the table; returns the exit code."""
    first, *lines = (HERE / "reference" / "tensors.txt").read_text(encoding="utf-8").splitlines()
    tolerance = float(first.split("\t")[1])
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    session = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    worst = 0.0

    for call in sorted({row[0] for row in rows}, key=int):
        arrays = {
            kind: [np.load(HERE / row[4]) for row in rows if row[:2] == [call, kind]]
            for kind in ("input", "output")
        }
        found = session.run(None, dict(zip(names, arrays["input"])))
        for expected, output in zip(arrays["output"], found):
            worst = max(worst, distance(expected, output))

    print(f"largest difference {worst:.2g} of the largest number; allowed are {tolerance:g}")
    return 0 if worst <= tolerance else 1


def distance(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest difference over the largest number expected; infinite where shapes or infinities differ."""
    left, right = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    if left.shape != right.shape or not np.array_equal(np.isfinite(left), np.isfinite(right)):
        return np.inf
    left, right = left[np.isfinite(left)], right[np.isfinite(right)]
    return float(np.abs(left - right).max() / max(np.abs(left).max(), 1e-30)) if left.size else 0.0


if __name__ == "__main__":
    sys.exit(main())
