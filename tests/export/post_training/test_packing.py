"""ONNX models from anywhere as models to pack."""

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal

from modelpress.export.errors import InputError, ModelError
from modelpress.export.onnx_flavours import emit
from modelpress.export.post_training.packing import WeightOptions, open_for_packing
from modelpress.export.post_training.rounding import PostTraining
from modelpress.export.press.reading import decode_artifact
from modelpress.export.press.writing import encode_artifact
from modelpress.export.quantized import QuantizedTensor
from modelpress.export.runtime import open_session
from tests.helpers.foreign_onnx import MODELS, NODE, arrays_of, embedding, every_operator, foreign, saved


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def packed(model, path, **options):
    return open_for_packing(saved(model, path), WeightOptions(min_elements=1, **options))


def normal(*shape):
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def axes_of(tensors):
    made = {name: tensors[name] for name in tensors}
    return {
        name: tensor.channel_axis if np.ndim(tensor.scale) else None
        for name, tensor in made.items()
        if isinstance(tensor, QuantizedTensor)
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_channels_lie_where_the_operator_has_them(path, dtype):
    assert axes_of(packed(every_operator(dtype), path).tensors) == {
        "conv.w": 0,
        "up.w": 1,
        "gemm.t": 0,
        "gemm": 1,
        "matmul": 1,
        "in_a_node": 1,
    }


def test_one_scale_per_tensor_if_asked_for(path):
    assert set(axes_of(packed(every_operator(), path, per_channel=False).tensors).values()) == {None}


def test_an_embedding_has_its_channels_first(path):
    assert axes_of(packed(embedding(), path).tensors) == {"table": 0}


@pytest.mark.parametrize(
    ("node", "axis"),
    [
        (NODE("MatMul", ["w", "x"], ["y"]), 0),
        (NODE("Gemm", ["w", "x"], ["y"]), 0),
        (NODE("Gemm", ["w", "x"], ["y"], transA=1), 1),
    ],
)
def test_a_weight_may_be_the_left_factor(path, node, axis):
    model = foreign([node], {"w": normal(4, 4)}, x=(4, 4), y=(4, 4))
    assert axes_of(packed(model, path).tensors) == {"w": axis}


def test_operators_that_disagree_about_the_channels_get_one_scale(path):
    nodes = [NODE("MatMul", ["x", "w"], ["a"]), NODE("Gemm", ["a", "w"], ["y"], transB=1)]
    model = foreign(nodes, {"w": normal(4, 4)})
    assert axes_of(packed(model, path).tensors) == {"w": None}


@pytest.mark.parametrize(
    ("node", "weight"),
    [
        (NODE("Add", ["x", "w"], ["y"]), np.ones((3, 4), np.float32)),
        (NODE("MatMul", ["x", "w"], ["y"]), np.ones(4, np.float32)),
        (NODE("MatMul", ["x", "w"], ["y"], domain="else.where"), np.ones((4, 4), np.float32)),
        (NODE("Gather", ["w", "x"], ["y"]), np.ones((4, 4), np.int64)),
    ],
)
def test_what_is_no_weight_stays_as_it_is(path, node, weight):
    model = foreign([node], {"w": weight})
    model.opset_import.append(onnx.helper.make_opsetid("else.where", 1))
    model.graph.input[0].type.tensor_type.elem_type = 7 if node.op_type == "Gather" else 1
    if weight.dtype != np.float32:
        kind = onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)
        model.graph.output[0].type.tensor_type.elem_type = kind
    assert_array_equal(packed(model, path).tensors["w"], weight, strict=True)


def test_small_tensors_stay_as_they_are(path):
    saved(every_operator(), path)
    tensors = open_for_packing(path, WeightOptions(min_elements=200)).tensors
    assert axes_of(tensors).keys() == {"conv.w", "in_a_node"}


@pytest.mark.parametrize("name", MODELS)
def test_lossless_keeps_every_byte(path, name):
    model = MODELS[name]()
    tensors = packed(model, path, lossless=True).tensors
    for tensor, array in arrays_of(model).items():
        assert tensors[tensor].tobytes() == array.tobytes()
        assert_array_equal(tensors[tensor], array, strict=True)


def test_each_access_gives_the_same_codes(path):
    tensors = packed(every_operator(), path, quantization=PostTraining(4, sparsity=0.5)).tensors
    assert all(tensors[name].equals(tensors[name]) for name in axes_of(tensors))


def test_what_became_of_each_tensor_is_told(path):
    tensors = packed(every_operator(), path, quantization=PostTraining(4, sparsity=0.5)).tensors
    assert not tensors.summaries
    assert isinstance(tensors["gemm"], QuantizedTensor)
    assert isinstance(tensors["gemm.b"], np.ndarray)
    gemm, bias = tensors.summaries["gemm"], tensors.summaries["gemm.b"]
    assert (gemm.n_elements, gemm.bits, gemm.n_zeros) == (168, 4, 84)
    assert (bias.n_elements, bias.bits, bias.n_zeros) == (12, None, None)


@pytest.mark.parametrize("shape", [(4, 4), (200, 200)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("lossless", [True, False])
def test_a_tensor_that_is_not_finite_comes_back_bit_for_bit_beside_quantized_ones(
    path, shape, dtype, lossless
):
    weight = normal(*shape).astype(dtype)
    weight[1, 2], weight[2, 1], weight[0, 0], weight[0, 1:3] = np.nan, -np.nan, -0.0, (np.inf, -np.inf)
    nodes = [
        NODE("MatMul", ["x", "other"], ["a"]),
        NODE("MatMul", ["a", "w"], ["b"]),
        NODE("Identity", ["w"], ["y"]),
    ]
    model = foreign(nodes, {"w": weight, "other": normal(shape[0], shape[0]).astype(dtype)}, y=shape)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = shape[0]

    made = packed(model, path, lossless=lossless)
    assert "w: holds NaN or infinity" in made.notes[0]
    session = open_session(
        emit(decode_artifact(encode_artifact(made.model)), flavour="float").SerializeToString()
    )
    (found,) = session.run(None, {"x": np.zeros((1, shape[0]), dtype)})
    assert found.tobytes() == weight.tobytes()


def test_a_default_that_is_not_finite_stays_a_default(path):
    model = foreign([NODE("Max", ["x", "w"], ["y"])], {"w": np.full(4, -np.inf, np.float32)})
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, [4]))
    made = packed(model, path)
    assert made.tensors["w"].tobytes() == np.full(4, -np.inf, np.float32).tobytes()
    assert [value.name for value in made.model.graph.graph.input] == ["x", "w"]


def test_metadata_and_graph_are_kept(path):
    model = every_operator()
    graph = packed(model, path).model.graph
    assert graph.metadata_props == model.metadata_props
    assert graph.producer_name == "elsewhere"
    assert graph.graph.doc_string == "a graph from elsewhere"


def test_a_model_that_breaks_the_rules_is_refused_before_any_work(path):
    model = every_operator()
    del model.graph.initializer[0]
    with pytest.raises(ModelError, match=r"model\.onnx: the graph is no valid ONNX model"):
        packed(model, path)


def test_shapes_that_contradict_are_mentioned(path):
    model = foreign([NODE("MatMul", ["x", "w"], ["y"])], {"w": np.eye(5, dtype=np.float32)})
    assert "MatMul" in packed(model, path).objection


def test_negative_sizes_are_refused():
    with pytest.raises(InputError, match="expected 0 or more"):
        WeightOptions(min_elements=-1)
