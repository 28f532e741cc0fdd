"""Three networks as people have them, with random weights: speech, sensor series, text."""

import numpy as np
from onnx import TensorProto, helper

from tests.helpers.foreign_onnx import INFO, NODE, foreign


def lstm_with_ctc_head(seed=0):
    """Features ``(n, 40, t)`` to log-probabilities ``(t, n, 29)``: convolution, two-way LSTM, linear layer."""
    draw = _draws(seed)
    nodes = [
        NODE("Conv", ["x", "conv.w", "conv.b"], ["a"], pads=[1, 1]),
        NODE("Relu", ["a"], ["r"]),
        NODE("Transpose", ["r"], ["s"], perm=[2, 0, 1]),  # (t, n, channels)
        NODE(
            "LSTM",
            ["s", "lstm.w", "lstm.r", "lstm.b"],
            ["h", "", ""],
            hidden_size=48,
            direction="bidirectional",
        ),
        NODE("Transpose", ["h"], ["p"], perm=[0, 2, 1, 3]),
        NODE("Reshape", ["p", "joined"], ["q"]),
        NODE("MatMul", ["q", "head.w"], ["m"]),
        NODE("Add", ["m", "head.b"], ["l"]),
        NODE("LogSoftmax", ["l"], ["y"], axis=-1),
    ]
    tensors = {
        "conv.w": draw(64, 40, 3, fan_in=120),
        "conv.b": draw(64, fan_in=10),
        "lstm.w": draw(2, 192, 64, fan_in=16),
        "lstm.r": draw(2, 192, 48, fan_in=48),
        "lstm.b": draw(2, 384, fan_in=10),
        "joined": np.array([0, 0, 96]),
        "head.w": draw(96, 29, fan_in=10),
        "head.b": draw(29, fan_in=10),
    }
    return foreign(nodes, tensors, x=("N", 40, "T"), y=("T", "N", 29))


def cnn_and_gru(seed=0):
    """Series ``(n, 6, 64)`` to logits ``(n, 7)``: two convolutions, a GRU, its last state, a linear layer."""
    draw = _draws(seed)
    nodes = [
        NODE("Conv", ["x", "conv1.w", "conv1.b"], ["a"], pads=[2, 2], strides=[2]),
        NODE("Relu", ["a"], ["b"]),
        NODE("Conv", ["b", "conv2.w", "conv2.b"], ["c"], pads=[2, 2], strides=[2]),
        NODE("Relu", ["c"], ["d"]),
        NODE("Transpose", ["d"], ["e"], perm=[2, 0, 1]),
        NODE("GRU", ["e", "gru.w", "gru.r", "gru.b"], ["", "f"], hidden_size=40, linear_before_reset=1),
        NODE("Squeeze", ["f", "first"], ["g"]),
        NODE("Gemm", ["g", "head.w", "head.b"], ["y"], transB=1),
    ]
    tensors = {
        "conv1.w": draw(32, 6, 5, fan_in=30),
        "conv1.b": draw(32, fan_in=10),
        "conv2.w": draw(48, 32, 5, fan_in=160),
        "conv2.b": draw(48, fan_in=10),
        "gru.w": draw(1, 120, 48, fan_in=12),
        "gru.r": draw(1, 120, 40, fan_in=40),
        "gru.b": draw(1, 240, fan_in=10),
        "first": np.array([0]),
        "head.w": draw(7, 40, fan_in=4),
        "head.b": draw(7, fan_in=10),
    }
    return foreign(nodes, tensors, x=("N", 6, 64), y=("N", 7))


def transformer(seed=0):
    """Tokens ``(n, 16)`` to logits ``(n, 16, 90)`` and pooled states ``(n, 48)``; later tokens are masked by -inf."""
    draw = _draws(seed)
    nodes = [
        NODE("Gather", ["tokens", "x"], ["e"]),
        NODE("Add", ["e", "places"], ["s"]),
        *(NODE("MatMul", ["s", f"{part}.w"], [part]) for part in ("query", "key", "value")),
        NODE("Transpose", ["key"], ["key.t"], perm=[0, 2, 1]),
        NODE("MatMul", ["query", "key.t"], ["scores"]),
        NODE("Add", ["scores", "mask"], ["masked"]),
        NODE("Softmax", ["masked"], ["attention"], axis=-1),
        NODE("MatMul", ["attention", "value"], ["mixed"]),
        NODE("Add", ["mixed", "s"], ["t"]),
        NODE("LayerNormalization", ["t", "norm.g", "norm.b"], ["u"], axis=-1),
        NODE("MatMul", ["u", "up.w"], ["v"]),
        NODE("Relu", ["v"], ["w"]),
        NODE("MatMul", ["w", "down.w"], ["z"]),
        NODE("Transpose", ["tokens"], ["tokens.t"], perm=[1, 0]),  # tied to the embedding
        NODE("MatMul", ["z", "tokens.t"], ["y"]),
        NODE("ReduceMean", ["z"], ["pooled"], axes=[1], keepdims=0),
    ]
    tensors = {
        "tokens": draw(90, 48, fan_in=1),
        "places": draw(16, 48, fan_in=4),
        "mask": np.triu(np.full((16, 16), -np.inf, np.float32), 1),
        **{f"{part}.w": draw(48, 48, fan_in=100) for part in ("query", "key")},
        "value.w": draw(48, 48, fan_in=48),
        "norm.g": np.ones(48, np.float32),
        "norm.b": draw(48, fan_in=10),
        "up.w": draw(48, 128, fan_in=48),
        "down.w": draw(128, 48, fan_in=64),
    }
    model = foreign(nodes, tensors, x=("N", 16), y=("N", 16, 90), x_elem=TensorProto.INT64)
    model.graph.output.append(INFO("pooled", TensorProto.FLOAT, ("N", 48)))
    return model


def inputs_of(model, n=6, seed=1):
    """Random inputs: numbers, or tokens; 24 steps where the length is free."""
    rng = np.random.default_rng(seed)
    (x,) = model.graph.input
    kind = x.type.tensor_type
    shape = [n, *(d.dim_value or 24 for d in kind.shape.dim[1:])]
    if kind.elem_type == TensorProto.INT64:
        return rng.integers(0, 90, shape)
    return rng.standard_normal(shape).astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))


def _draws(seed):
    rng = np.random.default_rng(seed)
    return lambda *shape, fan_in: (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


NETWORKS = {"lstm with ctc head": lstm_with_ctc_head, "cnn and gru": cnn_and_gru, "transformer": transformer}
