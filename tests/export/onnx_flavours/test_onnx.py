import numpy as np
import onnx
import pytest

from modelpress.benchmarks.audits.fidelity import tensors_that_differ
from modelpress.export.errors import InputError, ModelError
from modelpress.export.graphs.parts import metadata
from modelpress.export.onnx_flavours import emit
from modelpress.export.press.reading import decode_artifact
from modelpress.export.press.writing import encode_artifact
from modelpress.export.runtime import open_session, run_batched
from tests.helpers.graph_builder import INPUT, GraphBuilder
from tests.helpers.models import small_model


def test_weights_of_the_onnx_file_are_the_decoded_ones_bit_for_bit():
    emitted = emit(decode_artifact(encode_artifact(small_model())), flavour="float")
    assert tensors_that_differ(small_model(), emitted) == []
    assert all(tensor.HasField("raw_data") for tensor in emitted.graph.initializer)


def test_a_changed_weight_is_named():
    emitted = emit(small_model(), flavour="float")
    tensor = emitted.graph.initializer[0]
    tensor.raw_data = tensor.raw_data[:-1] + bytes([tensor.raw_data[-1] ^ 1])
    assert tensors_that_differ(small_model(), emitted) == ["conv.weight"]


def test_batch_axis_is_dynamic_and_provenance_is_kept():
    emitted = emit(small_model(), flavour="float")
    assert metadata(emitted) == {"modelpress.version": "test"}
    session = open_session(emitted.SerializeToString())
    images = np.random.default_rng(0).standard_normal((7, 2, 6, 6)).astype(np.float32)
    together, alone = run_batched(session, images), run_batched(session, images, batch=1)
    assert together.shape == (7, 3)
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_the_graph_computes_what_it_says():
    model = small_model()
    conv, fc = model.tensors["conv.weight"].dequantize(), model.tensors["fc.weight"].dequantize()
    image = np.random.default_rng(1).standard_normal((2, 6, 6)).astype(np.float32)
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))  # (2, 6, 6, 3, 3)
    features = np.einsum("chwij,ocij->ohw", patches, conv) + model.tensors["conv.bias"][:, None, None]
    expected = fc @ np.maximum(features, 0).mean(axis=(1, 2)) + model.tensors["fc.bias"]
    found = run_batched(open_session(emit(model, flavour="float").SerializeToString()), image[None])
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_the_flavour_is_in_the_metadata_of_its_file_alone():
    model = small_model()
    assert metadata(emit(model, flavour="sparse"))["modelpress.flavour"] == "sparse"
    assert metadata(model.graph) == metadata(emit(model, flavour="float")) == {"modelpress.version": "test"}


def test_unknown_flavour_is_named():
    with pytest.raises(InputError, match="flavour 'int3' is unknown; choose one of: float"):
        emit(small_model(), flavour="int3")


def test_two_layers_of_one_name_are_refused():
    builder = GraphBuilder("twice", (1, 4, 4))
    weight, bias = np.zeros((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)
    x = builder.conv("same", INPUT, weight, bias, stride=1, padding=0)
    with pytest.raises(ModelError, match=r"same\.weight: two tensors"):
        builder.conv("same", x, weight, bias, stride=1, padding=0)


def test_images_that_do_not_fit_are_refused():
    session = open_session(emit(small_model(), flavour="float").SerializeToString())
    with pytest.raises(InputError, match=r"images of shape \(1, 3, 6, 6\)"):
        run_batched(session, np.zeros((1, 3, 6, 6), np.float32))


def test_models_that_do_not_load_are_refused():
    with pytest.raises(InputError, match="ONNX Runtime cannot load the model"):
        open_session(onnx.ModelProto().SerializeToString())
