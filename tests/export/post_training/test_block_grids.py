"""Weights that come with scales in blocks: their codes are kept as they are, and come back."""

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper, numpy_helper

from modelpress.export.onnx_flavours import emit
from modelpress.export.post_training.packing import WeightOptions, open_for_packing
from modelpress.export.press.reading import decode_artifact
from modelpress.export.press.writing import encode_artifact
from modelpress.export.runtime import open_session
from tests.helpers.foreign_onnx import NODE, saved

DEPTH, WIDTH, BLOCK = 64, 96, 16
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((DEPTH, WIDTH)).astype(np.float32)
IMAGES = RNG.standard_normal((8, DEPTH)).astype(np.float32)
BLOCKS = WEIGHT.reshape(DEPTH // BLOCK, BLOCK, WIDTH)
SCALES = (np.abs(BLOCKS).max(axis=1) / 7).astype(np.float32)
CODES = np.rint(BLOCKS / SCALES[:, None]).reshape(DEPTH, WIDTH)
EXPECTED = IMAGES @ (CODES.reshape(BLOCKS.shape) * SCALES[:, None]).reshape(DEPTH, WIDTH)


def tensor(name, kind, array):
    array = np.asarray(array).astype(helper.tensor_dtype_to_np_dtype(kind))
    return numpy_helper.from_array(array, name)


def model_of(nodes, tensors, *domains):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", DEPTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WIDTH])],
        tensors,
    )
    opsets = [helper.make_opsetid("", 21), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def dequantized(kind, zero):
    tensors = [
        tensor("w", kind, CODES + zero),
        tensor("s", TensorProto.FLOAT, SCALES),
        tensor("z", kind, np.full(SCALES.shape, zero)),
    ]
    nodes = [
        NODE("DequantizeLinear", ["w", "s", "z"], ["v"], axis=0, block_size=BLOCK),
        NODE("MatMul", ["x", "v"], ["y"]),
    ]
    return model_of(nodes, tensors)


def by_matmul_n_bits():
    pairs = (CODES + 8).astype(np.uint8).reshape(-1, BLOCK, WIDTH).transpose(2, 0, 1)  # (out, blocks, codes)
    tensors = [
        tensor("w", TensorProto.UINT8, pairs[:, :, ::2] | pairs[:, :, 1::2] << 4),
        tensor("s", TensorProto.FLOAT, SCALES.T.reshape(-1)),
    ]
    sizes = {"K": DEPTH, "N": WIDTH, "bits": 4, "block_size": BLOCK}
    node = NODE("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **sizes)
    return model_of([node], tensors, "com.microsoft")


MODELS = {
    "int4": lambda: dequantized(TensorProto.INT4, 0),
    "uint4": lambda: dequantized(TensorProto.UINT4, 8),
    "int8": lambda: dequantized(TensorProto.INT8, 0),
    "MatMulNBits": by_matmul_n_bits,
}


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_codes_with_scales_in_blocks_come_back_bit_for_bit_and_compute_the_same(kind, lossless, tmp_path):
    model = MODELS[kind]()
    made = open_for_packing(
        saved(model, tmp_path / "m.onnx"), WeightOptions(lossless=lossless, min_elements=1)
    )
    artifact = encode_artifact(made.model)
    decoded = decode_artifact(artifact)

    stored = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    assert decoded.tensors.keys() == stored.keys()
    for name, array in stored.items():
        assert decoded.tensors[name].dtype == array.dtype
        assert_array_equal(decoded.tensors[name], array)

    # 15 values in use take less than four bits
    assert len(artifact) < CODES.size / 2 + SCALES.nbytes + 1000

    expected = open_session(model.SerializeToString()).run(None, {"x": IMAGES})[0]
    # ONNX Runtime rounds the activations of such a product to eight bits
    assert np.abs(expected - EXPECTED).max() < 0.02 * np.ptp(EXPECTED)
    for flavour in ("float", "weight-only", "sparse"):
        written = emit(decoded, flavour=flavour)
        assert_array_equal(open_session(written.SerializeToString()).run(None, {"x": IMAGES})[0], expected)


def test_the_graph_keeps_its_blocks(tmp_path):
    made = open_for_packing(saved(MODELS["int4"](), tmp_path / "m.onnx"), WeightOptions())
    assert onnx.helper.get_node_attr_value(made.model.graph.graph.node[0], "block_size") == BLOCK
