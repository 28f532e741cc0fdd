"""Models that are no classifiers of images, as small as they can be: speech, text in pictures, language."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.helpers.foreign_onnx import INFO, NODE

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
_LONGEST = 24  # tokens


def _model(nodes, inputs, outputs, tensors):
    graph = helper.make_graph(
        nodes, "sequence", inputs, outputs, [numpy_helper.from_array(a, n) for n, a in tensors.items()]
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def _normal(seed):
    rng = np.random.default_rng(seed)
    return lambda *shape: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)


def speech():
    """A bidirectional LSTM over frames ``(T, N, 20)``, and log-probabilities of 29 letters each, as CTC takes them."""
    draw = _normal(0)
    tensors = {
        "W": draw(2, 96, 20),
        "R": draw(2, 96, 24),
        "B": draw(2, 192),
        "flat": np.array([0, 0, -1]),
        "head": draw(29, 48).T.copy(),
        "bias": draw(29),
    }
    nodes = [
        NODE("LSTM", ["frames", "W", "R", "B"], ["both", "", ""], hidden_size=24, direction="bidirectional"),
        NODE("Transpose", ["both"], ["turned"], perm=[0, 2, 1, 3]),
        NODE("Reshape", ["turned", "flat"], ["features"]),
        NODE("MatMul", ["features", "head"], ["scores"]),
        NODE("Add", ["scores", "bias"], ["logits"]),
        NODE("LogSoftmax", ["logits"], ["letters"], axis=-1),
    ]
    ends = [INFO("frames", FLOAT, ["T", "N", 20])], [INFO("letters", FLOAT, ["T", "N", 29])]
    return _model(nodes, *ends, tensors)


def text_line():
    """Convolutions over a line of text ``(N, 1, 16, width)``, a GRU along it, and classes from its last state."""
    draw = _normal(1)
    tensors = {
        "c1": draw(8, 1, 3, 3) * 3,
        "b1": draw(8),
        "c2": draw(16, 8, 3, 3) * 3,
        "b2": draw(16),
        "columns": np.array([0, 64, -1]),
        "W": draw(1, 72, 64),
        "R": draw(1, 72, 24),
        "axes": np.array([0]),
        "head": draw(10, 24),
        "bias": draw(10),
    }
    nodes = [
        NODE("Conv", ["line", "c1", "b1"], ["a"], pads=[1] * 4),
        NODE("Relu", ["a"], ["ar"]),
        NODE("MaxPool", ["ar"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        NODE("Conv", ["p", "c2", "b2"], ["c"], pads=[1] * 4),
        NODE("Relu", ["c"], ["cr"]),
        NODE("MaxPool", ["cr"], ["q"], kernel_shape=[2, 2], strides=[2, 2]),
        NODE("Reshape", ["q", "columns"], ["r"]),
        NODE("Transpose", ["r"], ["steps"], perm=[2, 0, 1]),
        NODE("GRU", ["steps", "W", "R"], ["", "state"], hidden_size=24),
        NODE("Squeeze", ["state", "axes"], ["last"]),
        NODE("Gemm", ["last", "head", "bias"], ["classes"], transB=1),
    ]
    ends = [INFO("line", FLOAT, ["N", 1, 16, "width"])], [INFO("classes", FLOAT, ["N", 10])]
    return _model(nodes, *ends, tensors)


def language():
    """Tokens and a mask of those that count, ``(N, L)`` each: attention to earlier ones, then scores and a summary.

    Later tokens are hidden by minus infinities that the file stores, padding by some that it computes.
    """
    draw = _normal(2)
    tensors = {
        "table": draw(60, 32) * 5,
        "causal": np.triu(np.full((_LONGEST, _LONGEST), -np.inf, np.float32), 1),
        **{name: draw(32, 32) for name in ("wq", "wk", "wv", "wo")},
        "up": draw(32, 64),
        "down": draw(64, 32),
        "head": draw(32, 60),
        "pool": draw(4, 32),
        "bias": draw(4),
        "zero": np.array([0]),
        "one": np.array([1]),
        "both": np.array([0, 1]),
        "middle": np.array([1]),
        "none": np.float32(0),
        "hidden": np.float32(-np.inf),
        "scale": np.float32(32**-0.5),
    }
    nodes = [
        NODE("Gather", ["table", "tokens"], ["e"]),
        *(NODE("MatMul", ["e", f"w{k}"], [k]) for k in "qkv"),
        NODE("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        NODE("MatMul", ["q", "kt"], ["dots"]),
        NODE("Mul", ["dots", "scale"], ["scaled"]),
        NODE("Shape", ["tokens"], ["shape"]),
        NODE("Slice", ["shape", "one", "two_ends"], ["length"]),
        NODE("Concat", ["length", "length"], ["square"], axis=0),
        NODE("Slice", ["causal", "origin", "square", "both"], ["earlier"]),
        NODE("Add", ["scaled", "earlier"], ["ordered"]),
        NODE("Cast", ["mask"], ["counts"], to=TensorProto.BOOL),
        NODE("Unsqueeze", ["counts", "middle"], ["row"]),
        NODE("Where", ["row", "none", "hidden"], ["padding"]),
        NODE("Add", ["ordered", "padding"], ["masked"]),
        NODE("Softmax", ["masked"], ["attention"], axis=-1),
        NODE("MatMul", ["attention", "v"], ["mixed"]),
        NODE("MatMul", ["mixed", "wo"], ["o"]),
        NODE("Add", ["e", "o"], ["h"]),
        NODE("MatMul", ["h", "up"], ["u"]),
        NODE("Relu", ["u"], ["ur"]),
        NODE("MatMul", ["ur", "down"], ["d"]),
        NODE("Add", ["h", "d"], ["g"]),
        NODE("MatMul", ["g", "head"], ["scores"]),
        NODE("ReduceMean", ["g"], ["mean"], axes=[1], keepdims=0),
        NODE("Gemm", ["mean", "pool", "bias"], ["summary"], transB=1),
    ]
    tensors |= {"two_ends": np.array([2]), "origin": np.array([0, 0])}
    inputs = [INFO("tokens", INT64, ["N", "L"]), INFO("mask", INT64, ["N", "L"])]
    outputs = [INFO("scores", FLOAT, ["N", "L", 60]), INFO("summary", FLOAT, ["N", 4])]
    return _model(nodes, inputs, outputs, tensors)


def calls_of(name, n=6):
    """Inputs as such a model would see them, of different lengths."""
    rng = np.random.default_rng(7)
    calls = []
    for k in range(n):
        length = 8 + 2 * k
        if name == "speech":
            calls.append({"frames": rng.standard_normal((length, 2, 20)).astype(np.float32)})
        elif name == "text_line":
            calls.append({"line": rng.standard_normal((2, 1, 16, 4 * length)).astype(np.float32)})
        else:
            mask = (np.arange(length) < length - k)[None].astype(np.int64)
            calls.append({"tokens": rng.integers(0, 60, (1, length)), "mask": mask})
    return calls


MODELS = {"speech": speech, "text_line": text_line, "language": language}
