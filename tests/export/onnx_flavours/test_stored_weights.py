import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from modelpress.export.errors import ModelError
from modelpress.export.graphs.conventions import IR_VERSION
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.onnx_flavours import emit, prepare, stored_weights
from modelpress.export.onnx_flavours.bit_fields import pack_fields
from modelpress.export.onnx_flavours.constant_nodes import unused_names
from modelpress.export.onnx_flavours.stored_weights import StoredWeight, store_weights
from modelpress.export.quantized import QuantizedModel, QuantizedTensor, dense_array
from modelpress.export.runtime import open_session, run_batched
from tests.helpers.models import small_model
from tests.helpers.samples import quantized

FLAGS = ["", "p", "c", "pc", "o", "op", "oc", "opc", "os", "osp", "osc", "ospc"]


def bare_model(tensors, *, opset=13, **ops):
    """A graph whose outputs are its weights."""
    outputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(ops.get("dtype", t.dtype))), t.shape
        )
        for name, t in tensors.items()
    ]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "weights",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]), *outputs],
    )
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", opset)])
    return QuantizedModel(model, tensors)


def running(model):
    """The weights as ONNX Runtime expands them."""
    serialised = with_initializers(model.graph, {n: dense_array(t) for n, t in model.tensors.items()})
    onnx.checker.check_model(serialised, full_check=True)
    session = open_session(serialised.SerializeToString())
    _, *weights = session.run(None, {"x": np.zeros(1, np.float32)})
    return weights


@given(
    kind=st.fixed_dictionaries(
        {
            "bits": st.integers(2, 8),
            "flags": st.sampled_from(FLAGS),
            "axis": st.integers(0, 1),
            "density": st.sampled_from([0.0, 0.05, 0.6, 1.0]),
            "dtype": st.sampled_from([np.float32, np.float16]),
        }
    ),
    seed=st.integers(0, 9),
    flavour=st.sampled_from(["weight-only", "sparse"]),
)
def test_expanded_weights_equal_the_decoded_ones_bit_for_bit(kind, seed, flavour):
    shapes = {"w": (5, 7), "v": (3, 4, 2, 2), "one": (1, 1)}
    tensors = {
        name: quantized(shape, seed=seed + i, **kind) for i, (name, shape) in enumerate(shapes.items())
    }
    made = prepare(bare_model(tensors), flavour=flavour).model
    assert not made.quantized()
    for (name, tensor), found in zip(tensors.items(), running(made), strict=True):
        assert found.tobytes() == tensor.dequantize().tobytes(), name


def test_tensors_of_all_kinds_share_a_graph():
    tensors = {
        f"{flags or 'plain'}{bits}": quantized((6, 5), bits=bits, flags=flags, seed=bits)
        for bits in (2, 3, 4, 8)
        for flags in FLAGS
    }
    for flavour in ("weight-only", "sparse"):
        for tensor, found in zip(
            tensors.values(), running(prepare(bare_model(tensors), flavour=flavour).model), strict=True
        ):
            assert found.tobytes() == tensor.dequantize().tobytes()


def full_range(*, zeros):
    """All sixteen codes occur; exact zeros besides if asked for."""
    codes = np.tile(np.arange(16, dtype=np.uint8), (4, 8))
    support = np.ones(codes.shape, np.bool_)
    if zeros:
        support[0, :16] = False
        codes = codes * support
    return QuantizedTensor(
        codes, bits=4, scale=np.float32(0.1), offset=np.float32(-0.77), support=support if zeros else None
    )


def test_a_tensor_without_a_spare_code_is_stored_sparse():
    weight = StoredWeight.of("w", full_range(zeros=True))
    assert weight.zero_symbol is None
    assert weight.stored_bits(sparse=False) is None
    assert StoredWeight.of("w", full_range(zeros=False)).stored_bits(sparse=False) == 4 * 512
    tensors = {"full": full_range(zeros=True), "dense": full_range(zeros=False)}
    for tensor, found in zip(
        tensors.values(), running(prepare(bare_model(tensors), flavour="weight-only").model), strict=True
    ):
        assert found.tobytes() == tensor.dequantize().tobytes()


def test_dense_codes_take_their_bit_width():
    tensors = {"w": quantized((256, 512), bits=2, flags="o")}
    size = emit(bare_model(tensors), flavour="weight-only").ByteSize()
    assert 256 * 512 // 4 < size < 256 * 512 // 4 + 1000


def test_sparse_weights_take_one_bit_each_and_the_codes_of_the_nonzeros():
    tensor = quantized((256, 512), bits=4, flags="os", density=0.1)
    expected = (tensor.codes.size + 4 * np.count_nonzero(tensor.support)) // 8
    size = emit(bare_model({"w": tensor}), flavour="sparse").ByteSize()
    assert expected < size < expected + 1000


def test_a_dense_tensor_stays_dense_in_the_sparse_flavour():
    model = bare_model({"w": quantized((64, 64), flags="o")})
    sparse, dense = (prepare(model, flavour=f).model for f in ("sparse", "weight-only"))
    assert sparse.graph.graph == dense.graph.graph


@pytest.mark.parametrize(("flavour", "flags", "unpacked"), [("weight-only", "o", 4), ("sparse", "os", 8)])
def test_a_large_model_is_expanded_in_several_streams(flavour, flags, unpacked, monkeypatch):
    monkeypatch.setattr(stored_weights, "STREAM_WEIGHTS", 1000)
    tensors = {f"w{i}": quantized((20, 20), flags=flags, seed=i) for i in range(7)}
    made = prepare(bare_model(tensors), flavour=flavour).model
    remainders = [node for node in made.graph.graph.node if node.op_type == "Sub"]
    assert len(remainders) == unpacked
    for tensor, found in zip(tensors.values(), running(made), strict=True):
        assert found.tobytes() == tensor.dequantize().tobytes()


@given(flags=st.sampled_from(FLAGS), seed=st.integers(0, 9), sparse=st.booleans())
def test_integer_weights_are_rounded_half_to_even(flags, seed, sparse):
    tensor = quantized((8, 6), bits=5, flags=flags, seed=seed)
    rng = np.random.default_rng(seed)
    shape = np.shape(tensor.scale)
    multiplier = np.asarray(rng.choice([0.5, 1.5, 2.5], shape), np.float32)
    addend = None if tensor.offset is None else np.asarray(rng.integers(-20, 20, shape) / 2, np.float32)
    weight = StoredWeight("w", tensor, multiplier, addend, integer=True)
    per_row = (-1, 1) if shape else ()
    expected = tensor.codes.astype(np.float32) * multiplier.reshape(per_row)
    if addend is not None:
        expected = expected + addend.reshape(per_row)
    expected = np.where(tensor.nonzero, np.rint(expected), 0).astype(np.int8)
    model = bare_model({"w": tensor}, dtype=np.int8)
    (found,) = running(store_weights(model, [weight], flavour="int8-sparse", sparse=sparse).model)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("flavour", ["weight-only", "sparse"])
def test_the_model_computes_what_flavour_float_does(flavour):
    images = np.random.default_rng(0).standard_normal((5, 2, 6, 6)).astype(np.float32)
    expected, found = (
        run_batched(open_session(emit(small_model(), flavour=f).SerializeToString()), images)
        for f in ("float", flavour)
    )
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("flavour", ["weight-only", "sparse"])
def test_the_runtime_folds_the_expansion(flavour, optimised):
    graph = optimised(emit(small_model(), flavour=flavour)).graph
    assert {node.op_type for node in graph.node} <= {
        "Conv",
        "FusedConv",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
        "Relu",
        "ReorderOutput",
    }


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("flags", ["o", "os", "ospc"])
def test_weights_are_expanded_without_shifts_and_remainders_of_integers(bits, flags):
    """OpenCV has none of them, and OpenVINO computes wrong weights from them in large models."""
    tensors = {f"w{seed}": quantized((7, 5), bits=bits, flags=flags, seed=seed) for seed in range(2)}
    for flavour in ("weight-only", "sparse"):
        made = prepare(bare_model(tensors), flavour=flavour).model
        operators = {node.op_type for node in made.graph.graph.node}
        assert not operators & {"BitShift", "Mod", "Gather", "BitwiseAnd"}


@pytest.mark.parametrize("flavour", ["weight-only", "sparse"])
def test_an_old_opset_is_refused_with_the_way_out(flavour):
    model = bare_model({"w": quantized((4, 4))}, opset=11)
    weights = [StoredWeight.of("w", model.tensors["w"])]
    with pytest.raises(ModelError, match=rf"opset 11; flavour {flavour} needs 13 .* use flavour float"):
        store_weights(model, weights, flavour=flavour, sparse=flavour == "sparse")
    assert running(prepare(model, flavour="float").model)
    assert running(prepare(model, flavour=flavour).model)  # which converts it first


def test_new_names_avoid_those_of_the_model():
    model = bare_model({"a": quantized((2, 2)), "c": quantized((2, 2))})
    names = unused_names(model.graph, model.tensors)
    assert [next(names) for _ in range(4)] == ["b", "d", "e", "f"]
    made = prepare(model, flavour="sparse").model
    assert len(running(made)) == 2


def test_a_weight_that_is_also_an_input_stays_as_it_is():
    model = bare_model({"w": quantized((2, 3))})
    model.graph.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 3]))
    del model.graph.graph.output[1]
    assert list(prepare(model, flavour="sparse").model.quantized()) == ["w"]


@given(values=st.lists(st.integers(0, 255), max_size=40), bits=st.integers(1, 8))
def test_fields_stand_one_after_the_other_in_their_bytes(values, bits):
    values = np.array(values, np.uint8) & ((1 << bits) - 1)
    text = "".join(f"{value:0{bits}b}" for value in values)
    text += "0" * (-len(text) % 8)
    expected = [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]
    assert pack_fields(values, bits=bits).tolist() == expected


def test_many_weights_come_with_a_warning(monkeypatch):
    monkeypatch.setattr(stored_weights, "_MANY_WEIGHTS", 10)
    narrow, note = prepare(bare_model({"w": quantized((4, 4))}), flavour="sparse").notes
    assert "codes of 4 bits become float at load" in narrow
    assert "16 weights are expanded whenever the model is loaded" in note


def test_exact_zeros_survive_on_a_grid_that_starts_at_zero():
    codes = np.tile(np.array([0, 1, 2, 3, 4, 6, 7, 8], np.uint8), (4, 8))
    support = np.ones(codes.shape, np.bool_)
    support[:, ::10] = False
    tensor = QuantizedTensor(
        codes * support, bits=4, scale=np.float32(0.1), offset=np.float32(0), support=support
    )
    weight = StoredWeight("w", tensor, np.float32(10), None, integer=True)
    assert weight.zero_symbol == 5
    model = bare_model({"w": tensor}, dtype=np.int8)
    (found,) = running(store_weights(model, [weight], flavour="int8-sparse", sparse=True).model)
    np.testing.assert_array_equal(found, (codes * support * 10).astype(np.int8))


def test_empty_tensors_are_written_as_they_are():
    tensors = {"none": quantized((4, 0)), "w": quantized((4, 4))}
    for flavour in ("weight-only", "sparse"):
        empty, full = running(prepare(bare_model(tensors), flavour=flavour).model)
        assert empty.shape == (4, 0)
        assert full.tobytes() == tensors["w"].dequantize().tobytes()


def test_weights_that_are_inputs_are_told():
    model = bare_model({"w": quantized((2, 3))})
    model.graph.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 3]))
    del model.graph.graph.output[1]
    assert "1 weights are inputs of the graph and stay float" in prepare(model, flavour="sparse").notes[-1]
