"""ONNX files written tensor by tensor."""

import io
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.testing import assert_array_equal

from modelpress.export.errors import InputError, ModelError
from modelpress.export.graphs import stream as onnx_stream
from modelpress.export.graphs.check import check_graph
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.graphs.source import open_onnx
from modelpress.export.graphs.stream import write_onnx_stream
from modelpress.export.onnx_flavours import emit, write_onnx
from modelpress.export.quantized import QuantizedModel, dense_array
from modelpress.export.runtime import open_session
from tests.helpers.foreign_onnx import MODELS, NODE, arrays_of, every_operator, foreign, inputs_for, saved
from tests.helpers.models import small_model, sparse_model


def opened(model, path):
    source = open_onnx(saved(model, path))
    return QuantizedModel(source.graph, source.tensors)


def streamed(model):
    file = io.BytesIO()
    assert write_onnx_stream(file, model) == len(file.getvalue())
    return file.getvalue()


def in_memory(model):
    arrays = {name: dense_array(tensor) for name, tensor in model.tensors.items()}
    return with_initializers(model.graph, arrays).SerializeToString(deterministic=True)


@pytest.mark.parametrize("model", [small_model(), sparse_model()])
def test_bytes_are_those_of_the_emitted_model(model, tmp_path):
    emitted = emit(model, flavour="float")
    onnx.checker.check_model(emitted, full_check=True)
    size = write_onnx(tmp_path / "m.onnx", model, flavour="float")
    data = (tmp_path / "m.onnx").read_bytes()
    assert data == emitted.SerializeToString(deterministic=True)
    assert len(data) == size


@pytest.mark.parametrize("name", MODELS)
def test_bytes_of_foreign_models_are_those_that_onnx_writes(name, tmp_path):
    model = opened(MODELS[name](), tmp_path / "m.onnx")
    assert streamed(model) == in_memory(model)


def full_graph():
    """Every field of model and graph that comes before or after the initializers."""
    model = every_operator()
    model.domain, model.model_version, model.doc_string = "some.where", 7, "words"
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("a", 1, ("N", 8, 6, 6)))
    model.graph.metadata_props.add(key="k", value="v")
    model.graph.quantization_annotation.add(tensor_name="a")
    model.functions.append(
        onnx.helper.make_function(
            "some.where",
            "Same",
            ["i"],
            ["o"],
            [onnx.helper.make_node("Identity", ["i"], ["o"])],
            [onnx.helper.make_opsetid("", 17)],
        )
    )
    model.opset_import.append(onnx.helper.make_opsetid("some.where", 1))
    return model


def test_no_field_is_lost_or_moved(tmp_path):
    model = opened(full_graph(), tmp_path / "m.onnx")
    assert streamed(model) == in_memory(model)
    restored = onnx.ModelProto.FromString(streamed(model))
    del restored.graph.initializer[:]
    assert restored == model.graph


def test_a_graph_without_tensors_and_fields_is_written():
    graph = onnx.ModelProto()
    graph.graph.SetInParent()
    assert streamed(QuantizedModel(graph, {})) == b"\x3a\x00"
    with pytest.raises(ModelError, match="0 graphs"):
        streamed(QuantizedModel(onnx.ModelProto(), {}))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.arange(12, dtype=np.int64).reshape(3, 4)[:, ::2],
        np.asfortranarray(np.ones((2, 3), np.float16)),
        np.array(True),
        np.zeros((0, 3), np.float32),
    ],
)
def test_any_layout_in_memory_is_written(array):
    model = QuantizedModel(small_model().graph, {"x": array})
    restored = arrays_of(onnx.ModelProto.FromString(streamed(model)))["x"]
    assert_array_equal(restored, array)
    assert restored.dtype == array.dtype.newbyteorder("=")


def test_types_that_onnx_does_not_know_are_refused():
    with pytest.raises(ModelError, match="x: type <U4 cannot be stored in an ONNX model"):
        streamed(QuantizedModel(small_model().graph, {"x": np.array(["text"])}))


def test_models_beyond_the_limit_of_protobuf_are_refused_before_anything_is_written(monkeypatch):
    monkeypatch.setattr(onnx_stream, "MAX_ONNX_BYTES", 500)
    file = io.BytesIO()
    with pytest.raises(ModelError, match=r"the model takes \d{3} bytes; one ONNX file holds up to 500"):
        write_onnx_stream(file, small_model())
    assert not file.getvalue()


@pytest.mark.parametrize("name", ["operators", "float16", "branching"])
def test_models_beyond_the_limit_of_protobuf_keep_their_weights_in_a_second_file(name, monkeypatch, tmp_path):
    original, path = MODELS[name](), tmp_path / "m.onnx"
    model = opened(original, tmp_path / "original.onnx")
    monkeypatch.setattr(onnx_stream, "MAX_ONNX_BYTES", 500)
    monkeypatch.setattr(onnx_stream, "_INLINE_BYTES", 64)
    size = write_onnx(path, model, flavour="float")
    assert {p.name for p in tmp_path.iterdir()} == {"m.onnx", "m.onnx.data", "original.onnx"}
    assert size == path.stat().st_size + (tmp_path / "m.onnx.data").stat().st_size
    onnx.checker.check_model(path)

    again = open_onnx(path, allow_external_data=True)
    assert again.graph == model.graph
    for tensor, array in model.tensors.items():
        assert_array_equal(again.tensors[tensor], array, strict=True)

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = inputs_for(session)
    expected = open_session(original.SerializeToString()).run(None, feeds)
    assert_array_equal(session.run(None, feeds)[0], expected[0], strict=True)

    path.unlink()  # what is left belongs to nobody that is known
    with pytest.raises(InputError, match=r"m\.onnx\.data exists, and belongs to no m\.onnx"):
        write_onnx(path, model, flavour="float")


class Unsteady(Mapping):
    """Gives another shape each time."""

    def __init__(self):
        self.length = 0

    def __getitem__(self, name):
        self.length += 1
        return np.zeros(self.length, np.float32)

    def __iter__(self):
        return iter(["x"])

    def __len__(self):
        return 1


def test_a_tensor_that_is_not_what_was_announced_leaves_no_file(tmp_path):
    graph = foreign([onnx.helper.make_node("Identity", ["x"], ["y"])], {})
    with pytest.raises(ModelError, match=r"x: is float32 of shape \(\d,\); TensorSpec"):
        write_onnx(tmp_path / "m.onnx", QuantizedModel(graph, Unsteady()), flavour="float")
    assert not list(tmp_path.iterdir())


# The checker, without weights


@pytest.mark.parametrize("name", MODELS)
def test_good_graphs_pass_the_checker(name, tmp_path):
    assert check_graph(opened(MODELS[name](), tmp_path / "m.onnx")) is None


def large(**options):
    weight = np.ones((40, 40), np.float32)
    return foreign([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, **options)


def test_large_tensors_are_not_read_by_the_checker(tmp_path):
    model = opened(large(x=("N", 40), y=("N", 40)), tmp_path / "m.onnx")
    read = []

    class Watched(type(model.tensors)):
        def __getitem__(self, name):
            read.append(name)
            return super().__getitem__(name)

    model.tensors.__class__ = Watched
    assert check_graph(model) is None
    assert not read


def test_a_broken_graph_is_refused(tmp_path):
    model = every_operator()
    del model.graph.initializer[0]
    with pytest.raises(ModelError, match=r"no valid ONNX model: .*conv\.w"):
        check_graph(opened(model, tmp_path / "m.onnx"))


def test_contradicting_shapes_are_reported(tmp_path):
    assert "MatMul" in check_graph(opened(large(x=("N", 3), y=("N", 40)), tmp_path / "m.onnx"))


def test_graphs_of_old_models_must_declare_their_weights(tmp_path):
    model = opened(large(x=("N", 40), y=("N", 40), ir_version=3, opset=8), tmp_path / "m.onnx")
    assert check_graph(model) is None  # the file was made new when it was opened
    model.graph.ir_version = 3
    with pytest.raises(ModelError, match="w in initializer but not in graph input"):
        check_graph(model)
    model.graph.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, (40, 40)))
    assert check_graph(model) is None


@pytest.mark.parametrize("kind", ["no shape", "no type", "domain"])
def test_what_runtimes_do_without_is_no_fault(kind, tmp_path):
    model = large(x=("N", 40), y=("N", 40))
    if kind == "no shape":
        model.graph.output[0].type.tensor_type.ClearField("shape")
    elif kind == "no type":
        model.graph.output[0].ClearField("type")
    else:
        model.graph.node[0].CopyFrom(NODE("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft"))
    before = opened(model, tmp_path / "m.onnx")
    assert check_graph(before) is None
    open_session(streamed(before))


@pytest.mark.parametrize("name", MODELS)
def test_the_written_model_computes_what_the_original_does(name, tmp_path):
    original = MODELS[name]()
    data = streamed(opened(original, tmp_path / "m.onnx"))
    sessions = [open_session(original.SerializeToString()), open_session(data)]
    feeds = inputs_for(sessions[0])
    expected, found = (session.run(None, feeds) for session in sessions)
    assert_array_equal(found[0], expected[0], strict=True)
