"""Does the installed ONNX Runtime do what `modelpress.benchmarks.runtimes.capabilities` says?"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from modelpress.benchmarks.runtimes.capabilities import CAPABILITIES, Capability
from modelpress.export.runtime import PROVIDER

_TOLERANCE = (
    0.4  # of outputs up to 20; the integer rows round 18 inputs by 0.015 and the output by 0.1 at most
)


@dataclass(frozen=True)
class Probe:
    """What became of a capability's small model.

    Attributes:
        right: Whether it loaded and gave the right answer.
        folded: Whether nothing of the weight's expansion was left to do at inference.
        detail: Operators that ran, or why it did not load.
    """

    capability: Capability
    right: bool
    folded: bool
    detail: str

    @property
    def as_expected(self) -> bool:
        """Whether the table holds for the installed version."""
        since = self.capability.since
        if since is None or installed_version() < since:
            return not self.right
        return self.right and self.folded == self.capability.folded


def installed_version() -> tuple[int, int]:
    """Of ONNX Runtime: major and minor."""
    major, minor = ort.__version__.split(".")[:2]
    return int(major), int(minor)


def probe_runtime() -> list[Probe]:
    """Run every row of the table."""
    x = np.random.default_rng(1).uniform(-3, 3, (1, 2, 5, 5)).astype(np.float32)
    expected, _ = _run(CAPABILITIES[0].probe(), x)
    return [_probe(capability, x, expected) for capability in CAPABILITIES]


def _probe(
    capability: Capability,
    x: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
) -> Probe:
    try:
        found, operators = _run(capability.probe(), x)
    except Exception as error:  # what a runtime raises on models it does not know has no common base
        return Probe(capability, right=False, folded=False, detail=str(error).splitlines()[0][:200])
    right = found.shape == expected.shape and bool(np.abs(found - expected).max() < _TOLERANCE)
    folded = all(operator in _AT_INFERENCE for operator in operators)
    return Probe(capability, right, folded, ", ".join(operators))


# what is left when a weight is folded: the convolution itself, layouts, and activations in and out of integers
_AT_INFERENCE = (
    *("Conv", "QLinearConv", "QuantizeLinear x", "DequantizeLinear y"),
    *("ReorderInput", "ReorderOutput", "Transpose"),
)


def _run(model: onnx.ModelProto, x: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Output, and the operators of the optimised graph; those on the model's input and output are told apart."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[PROVIDER])
        optimised = onnx.load(options.optimized_model_filepath)

    (found,) = session.run(None, {"x": x})
    return np.asarray(found, np.float32), [_operator(node) for node in optimised.graph.node]


def _operator(node: onnx.NodeProto) -> str:
    if node.op_type == "QuantizeLinear" and node.input[0] == "x":
        return "QuantizeLinear x"
    if node.op_type == "DequantizeLinear" and node.output[0] == "y":
        return "DequantizeLinear y"
    return node.op_type
