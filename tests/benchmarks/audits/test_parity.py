from dataclasses import replace

import numpy as np
import onnx
import pytest

from modelpress.benchmarks.audits.fidelity import compare_logits
from modelpress.benchmarks.audits.first_difference import first_differing_layer
from modelpress.benchmarks.audits.parity import MOST_IMAGES, parity_chain
from modelpress.benchmarks.subjects.given import read_given
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.export.onnx_flavours import emit
from modelpress.export.press.writing import write_artifact
from modelpress.export.quantized import QuantizedModel
from tests.helpers.graph_sketch import Sketch
from tests.helpers.models import small_model, sparse_model

IMAGES = np.random.default_rng(3).standard_normal((20, 2, 6, 6)).astype(np.float32)


@pytest.fixture
def put(tmp_path):
    """Writes an ONNX model or packs a quantized one, and opens the file."""

    def write(name, model):
        path = tmp_path / name
        if isinstance(model, QuantizedModel):
            write_artifact(path, model)
        else:
            path.write_bytes(model.SerializeToString())
        return open_model(path)

    return write


def flavours(put):
    return [
        put("model.press", small_model()),
        *(
            put(f"{flavour}.onnx", emit(small_model(), flavour=flavour))
            for flavour in ("float", "weight-only", "sparse")
        ),
    ]


def with_changed_codes(model):
    """A copy in which one code of the first convolution is another."""
    name, tensor = next(iter(model.quantized().items()))
    codes = tensor.codes.copy()
    place = np.argwhere(tensor.nonzero)[0]
    codes[tuple(place)] += 1 if codes[tuple(place)] < tensor.code_range[1] else -1
    return QuantizedModel(model.graph, {**model.tensors, name: replace(tensor, codes=codes)})


def test_every_link_holds_for_one_network_in_all_its_forms(put):
    models = flavours(put)
    logits = models[0].session().run(None, {"images": IMAGES})[0]
    steps = parity_chain(models, IMAGES, torch_logits=logits, frozen=small_model())
    assert [step.what for step in steps] == ["integer codes", *["weights"] * 3, *["logits"] * 8]
    assert all(step.equal and not step.first_difference for step in steps)
    assert [step.n_compared for step in steps] == [84] * 4 + [20] * 8
    assert steps[4].reference == "PyTorch, fake-quantized"
    assert all(step.largest_difference == 0 for step in steps[:5])
    assert all(step.label_agreement == 1 for step in steps if step.what == "logits")
    assert (steps[5].reference, steps[5].candidate) == ("model.press, optimisations off", "model.press")
    assert (steps[-1].reference, steps[-1].candidate) == ("model.press", "sparse.onnx")


def test_the_chain_runs_on_random_numbers_and_says_the_same_twice(put):
    models = flavours(put)[:2]
    first, second = (parity_chain(models, None) for _ in range(2))
    assert first == second
    assert all(step.equal and step.n_compared for step in first)


def test_a_changed_code_is_found_in_codes_weights_and_activations(put):
    models = [
        put("model.press", small_model()),
        put("other.onnx", emit(with_changed_codes(small_model()), flavour="float")),
    ]
    codes, weights, *logits = parity_chain(models, IMAGES, frozen=with_changed_codes(small_model()))
    assert (codes.equal, codes.first_difference, codes.largest_difference) == (False, "conv.weight", 1)
    assert (weights.equal, weights.first_difference) == (False, "conv.weight")
    assert weights.largest_difference > 0
    assert "1 of 84 weights differ" in weights.detail
    assert logits[-1].first_difference == "Conv conv.weight"


def test_scales_that_differ_are_told_from_codes_that_do():
    from modelpress.benchmarks.audits.weight_parity import compare_codes

    name, tensor = next(iter(small_model().quantized().items()))
    scaled = replace(tensor, scale=np.float32(0.03))
    other = QuantizedModel(small_model().graph, {**small_model().tensors, name: scaled})
    step = compare_codes(small_model(), other, candidate="x")
    assert (step.equal, step.largest_difference, step.first_difference) == (False, 0, name)
    assert "codes agree" in step.detail
    missing = compare_codes(small_model(), sparse_model(), candidate="x")
    assert (missing.n_compared, missing.equal) == (0, False)


def layered(weights, *, swapped=False, transposed=False, quantized=False):
    """Two parallel convolutions, added, and a linear layer."""
    a, b, c = weights
    s = Sketch()

    def weight(array, name):
        if not quantized:
            return s.constant(array, name)
        codes = np.round(array / np.float32(0.01)).astype(np.int8)
        return s.dequantize(s.constant(codes, name), np.int8(0), scale=np.float32(0.01))

    branches = {}
    for name, array in [("b", b), ("a", a)] if swapped else [("a", a), ("b", b)]:
        branches[name] = s.conv("x", weight(array, name))
    x = s.node("Flatten", s.node("GlobalAveragePool", s.node("Add", branches["a"], branches["b"])))
    if transposed:
        s.node("Gemm", x, weight(np.ascontiguousarray(c.T), "c"), transB=1)
    else:
        s.node("MatMul", x, weight(c, "d"))
    return s.model(shape=("N", 2, 6, 6), rank=2)


def random_weights():
    rng = np.random.default_rng(5)
    return [rng.uniform(-1, 1, shape).astype(np.float32) for shape in ((4, 2, 3, 3), (4, 2, 3, 3), (4, 4))]


def test_layers_are_matched_by_the_flow_of_data_not_by_names_or_the_order_in_the_file(put):
    weights = random_weights()
    models = [
        put("one.onnx", layered(weights, transposed=True)),
        put("two.onnx", layered(weights, swapped=True)),
    ]
    step, *logits = parity_chain(models, IMAGES)
    assert step.equal, step
    assert all(step.equal for step in logits)


def test_rounded_weights_differ_by_half_a_step_at_most(put):
    weights = random_weights()
    models = [
        put("one.onnx", layered(weights)),
        put("int8.onnx", layered(weights, quantized=True, swapped=True, transposed=True)),
    ]
    step = parity_chain(models, IMAGES)[0]
    assert not step.equal
    assert 0.004 < step.largest_difference <= 0.0051
    assert step.detail.endswith("by at most 0.50 steps of their integer grid")


def test_what_rounds_activations_is_said_where_sums_may_end_a_step_apart(put):
    s = Sketch()
    s.node("Flatten", s.both(s.conv(s.both("x", np.uint8(128)), s.weight((2, 2, 3, 3))), np.uint8(128)))
    (step,) = parity_chain([put("int8.onnx", s.model(shape=("N", 2, 6, 6), rank=2))], IMAGES)
    assert step.n_compared == 20
    assert step.largest_difference <= 0.0501  # one step
    assert "a step apart" in step.detail


def test_the_first_layer_that_differs_is_the_first():
    a, b, c = random_weights()
    reference = layered([a, b, c])
    assert first_differing_layer(reference, layered([a, b, c], swapped=True), {"x": IMAGES}) == ""
    assert first_differing_layer(reference, layered([a, b * 1.01, c]), {"x": IMAGES}) == "Conv b"
    assert first_differing_layer(reference, layered([a, b, c * 1.01]), {"x": IMAGES}) == "MatMul d"
    assert first_differing_layer(reference, layered([a, b, c * 1.00001]), {"x": IMAGES}) == ""
    assert (
        first_differing_layer(reference, layered([a, b, c], transposed=True), {"x": IMAGES}) == ""
    )  # other operators


def test_networks_of_other_shapes_are_not_comparable(put):
    models = [put("a.press", small_model()), put("b.onnx", emit(sparse_model(), flavour="float"))]
    steps = parity_chain(models, IMAGES)
    assert steps[0].what == "weights"
    assert all("not comparable" in step.detail for step in (steps[0], steps[2], steps[3]))
    assert [step.n_compared for step in steps] == [0, 20, 0, 0]
    assert steps[1].equal
    without_images = parity_chain(models, None)
    assert [step.n_compared for step in without_images] == [0, 32, 32, 0]


@pytest.mark.parametrize(
    ("shape", "also"),
    [(("N", 2, "H", 6), ()), (("N", 2, 6, 6), (onnx.helper.make_tensor_value_info("z", 1, [1]),))],
)
def test_inputs_of_any_number_and_length_are_made_and_compared(put, shape, also):
    s = Sketch()
    s.node("Relu", "x")
    (step,) = parity_chain([put("m.onnx", s.model(shape=shape, also_inputs=also, rank=4))], None)
    assert (step.n_compared, step.what, step.equal) == (4, "outputs", True)


def test_inputs_of_which_nothing_can_be_made_are_said(put):
    s = Sketch()
    s.node("Relu", "x")
    model = s.model(shape=("N", 2, 6, 6), rank=4)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    (step,) = parity_chain([put("m.onnx", model)], None)
    assert (step.n_compared, step.equal) == (0, False)
    assert "the shape of input x is open" in step.detail


def test_given_inputs_are_what_outputs_are_compared_on(put, tmp_path):
    s = Sketch()
    s.node("Relu", "x")
    models = [put(f"{k}.onnx", s.model(shape=("N", 2, 6, 6), rank=4)) for k in range(2)]
    np.save(tmp_path / "x.npy", np.full((3, 2, 6, 6), -np.inf, np.float32))
    *_, step = parity_chain(models, None, given=read_given({"x": tmp_path / "x.npy"}))
    assert (step.n_compared, step.equal, step.largest_difference) == (1, True, 0)


def test_infinities_that_masks_make_are_compared(put, tmp_path):
    s = Sketch()
    s.node("Neg", "x")
    models = [put(f"{k}.onnx", s.model(shape=("N", 2, 6, 6), rank=4)) for k in range(2)]
    np.save(tmp_path / "x.npy", np.where(IMAGES[:2] > 0, np.inf, IMAGES[:2]))
    *_, step = parity_chain(models, None, given=read_given({"x": tmp_path / "x.npy"}))
    assert (step.n_compared, step.equal) == (1, True)


def test_models_of_a_fixed_batch_run_in_that_batch(put):
    s = Sketch()
    s.node("Flatten", s.conv("x", s.floats(1, 2, 3, 3)))
    fixed, free = s.model(shape=(3, 2, 6, 6), rank=2), s.model(shape=("N", 2, 6, 6), rank=2)
    steps = parity_chain([put("fixed.onnx", fixed), put("free.onnx", free)], IMAGES)
    assert [step.n_compared for step in steps[1:]] == [20, 20, 20]
    assert all(step.equal for step in steps)


def test_numbers_that_are_not_finite_are_not_comparable(put):
    s = Sketch()
    s.node("Flatten", s.node("Log", "x"))
    (step,) = parity_chain([put("m.onnx", s.model(shape=("N", 2, 6, 6), rank=2))], IMAGES)
    assert (step.n_compared, step.equal) == (0, False)
    assert "NaN or infinity" in step.detail


def test_no_images_are_nothing_to_compare(put):
    (step,) = parity_chain([put("m.press", small_model())], IMAGES[:0])
    assert (step.n_compared, step.equal, step.detail) == (0, False, "not comparable: there are no images")


def test_at_most_256_images_are_used(put):
    images = np.concatenate([IMAGES] * 20)
    (step,) = parity_chain([put("m.press", small_model())], images)
    assert step.n_compared == MOST_IMAGES


def test_files_of_the_same_name_are_told_apart(put, tmp_path):
    (tmp_path / "b").mkdir()
    models = [put("m.press", small_model()), put("b/m.press", with_changed_codes(small_model()))]
    step = parity_chain(models, IMAGES)[0]
    assert step.reference != step.candidate
    assert step.candidate.endswith("b/m.press")


def test_the_chain_needs_models_and_the_images_of_the_logits(put):
    with pytest.raises(ValueError, match="at least one model"):
        parity_chain([], IMAGES)
    with pytest.raises(ValueError, match="images that they belong to"):
        parity_chain([put("m.press", small_model())], None, torch_logits=np.zeros((20, 3), np.float32))


def test_a_step_of_logits_says_what_comparing_them_says(put):
    models = [
        put("a.press", small_model()),
        put("b.onnx", emit(with_changed_codes(small_model()), flavour="float")),
    ]
    step = parity_chain(models, IMAGES)[-1]
    expected, actual = (model.session().run(None, {"images": IMAGES})[0] for model in models)
    record = compare_logits(expected, actual, reference_name="a", candidate_name="b")
    assert step.largest_difference == pytest.approx(record.largest_difference, rel=1e-4)
    assert step.label_agreement == record.label_agreement


def regressor(factor, *, n_outputs=1):
    """A model of one column per output, the last of which is scaled."""
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3])]
    names = [f"y{k}" for k in range(n_outputs)]
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 1]) for name in names]
    nodes = [onnx.helper.make_node("MatMul", ["x", f"w{k}"], [name]) for k, name in enumerate(names)]
    weights = [np.full((3, 1), factor if k == n_outputs - 1 else 1, np.float32) for k in range(n_outputs)]
    tensors = [onnx.numpy_helper.from_array(w, f"w{k}") for k, w in enumerate(weights)]
    graph = onnx.helper.make_graph(nodes, "regressor", inputs, outputs, tensors)
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 13)])


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_outputs_that_are_no_logits_are_compared_by_value(n_outputs, put):
    models = [put(f"{f}.onnx", regressor(f, n_outputs=n_outputs)) for f in (1, 1.00001, 9)]
    steps = {
        s.candidate: s for s in parity_chain(models, None) if s.what == "outputs" and s.reference == "1.onnx"
    }
    assert {name: step.equal for name, step in steps.items()} == {"1.00001.onnx": True, "9.onnx": False}
    assert all(step.label_agreement is None for step in steps.values())
    assert "no logits: equal within 0.001 of the largest" in steps["9.onnx"].detail


def test_models_without_weights_have_none_that_are_equal(put):
    model = regressor(1)
    model.graph.node[0].CopyFrom(onnx.helper.make_node("ReduceSum", ["x"], ["y0"], keepdims=0))
    del model.graph.initializer[:], model.graph.output[0].type.tensor_type.shape.dim[:]
    weights = [
        s for s in parity_chain([put("a.onnx", model), put("b.onnx", model)], None) if s.what == "weights"
    ]
    assert [step.n_compared for step in weights] == [0]
    assert "0 layers with 0 weights" in weights[0].detail
