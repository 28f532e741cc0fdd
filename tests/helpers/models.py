"""Two small models with weights of every kind."""

import numpy as np

from modelpress.export.quantized import QuantizedModel, QuantizedTensor
from modelpress.export.tensor_spec import CARRIERS, DTYPES, FEW_BITS, carrier_of
from tests.helpers.graph_builder import INPUT, GraphBuilder


def small_model() -> QuantizedModel:
    """One asymmetric pruned convolution, one symmetric linear layer, float biases."""
    rng = np.random.default_rng(7)
    support = rng.random((4, 2, 3, 3)) < 0.4
    conv = QuantizedTensor(
        np.where(support, rng.integers(0, 16, support.shape), 0).astype(np.uint8),
        bits=4,
        scale=np.float32(0.02),
        offset=np.float32(-0.15),
        support=support,
        channel_scale=np.array([1.0, -0.5, 2.0, 0.25], np.float32),
    )
    linear = QuantizedTensor(
        rng.integers(-3, 4, (3, 4)).astype(np.int8), bits=3, scale=np.array([0.1, 0.2, 0.3], np.float32)
    )
    builder = GraphBuilder("small", (2, 6, 6))
    x = builder.conv("conv", INPUT, conv, rng.standard_normal(4).astype(np.float32), stride=1, padding=1)
    x = builder.flatten(builder.global_average_pool(builder.relu(x)))
    x = builder.gemm("fc", x, linear, np.zeros(3, np.float32))
    return builder.finish(x, n_outputs=3, metadata={"modelpress.version": "test"})


def typed_model() -> QuantizedModel:
    """A tensor of every element type, whatever their bits say; one of them twice."""
    rng = np.random.default_rng(3)
    tensors = {}
    for kind, dtype in CARRIERS.items():
        bits = 1 if dtype.kind == "b" else FEW_BITS.get(kind, 8 * dtype.itemsize)
        data = rng.integers(0, 256, 40 * dtype.itemsize, np.uint8)
        numbers = data & np.uint8(255 >> 8 - min(bits, 8))
        tensors[f"type {kind}"] = carrier_of(numbers.view(dtype).view(DTYPES[kind])).view(DTYPES[kind])
    return QuantizedModel(small_model().graph, {**tensors, "again": tensors["type 1"]})


def alike_model() -> QuantizedModel:
    """Convolutions of the same few kernels, so that their code tables are shared."""
    rng = np.random.default_rng(17)
    kernels = rng.choice([0, 0, 0, 1, 1, 2, 3], (6, 3, 3)) * rng.choice([-1, 1], (6, 3, 3))
    builder, x = GraphBuilder("alike", (8, 6, 6)), INPUT
    for k in range(5):
        codes = kernels[rng.integers(0, 6, (8, 8))].astype(np.int8)
        weight = QuantizedTensor(codes, bits=3, scale=np.float32(0.01))
        x = builder.relu(builder.conv(f"c{k}", x, weight, np.zeros(8, np.float32), stride=1, padding=1))
    x = builder.flatten(builder.global_average_pool(x))
    return builder.finish(x, n_outputs=8, metadata={})


def sparse_model() -> QuantizedModel:
    """A network whose weights are mostly zero, asymmetric and symmetric: stored as CSR."""
    rng = np.random.default_rng(11)
    support = rng.random((16, 16, 3, 3)) < 0.12
    first = QuantizedTensor(
        np.where(support, rng.integers(0, 16, support.shape), 0).astype(np.uint8),
        bits=4,
        scale=np.float32(0.02),
        offset=np.float32(-0.15),
        support=support,
        channel_scale=rng.standard_normal(16).astype(np.float32),
    )
    kept = rng.random((4, 16, 3, 3)) < 0.12
    second = QuantizedTensor(
        np.where(kept, rng.integers(-127, 128, kept.shape), 0).astype(np.int8), bits=8, scale=np.float32(0.01)
    )
    builder = GraphBuilder("sparse", (16, 6, 6))
    x = builder.relu(
        builder.conv("a", INPUT, first, np.linspace(1, 2, 16, dtype=np.float32), stride=1, padding=1)
    )
    x = builder.conv("b", x, second, np.ones(4, np.float32), stride=2, padding=1)
    x = builder.flatten(builder.global_average_pool(x))
    return builder.finish(x, n_outputs=4, metadata={})
