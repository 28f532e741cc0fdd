"""Finding weights in ONNX files without loading them."""

import contextlib
import io

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper, numpy_helper

from modelpress.export.coding.varint import pack_varint
from modelpress.export.errors import InputError, ModelError
from modelpress.export.graphs import protobuf_wire
from modelpress.export.graphs import tensor_scan as onnx_tensor_scan
from modelpress.export.graphs.protobuf_wire import length_prefix
from modelpress.export.graphs.source import open_onnx
from modelpress.export.graphs.stream import write_onnx_stream
from modelpress.export.post_training.packing import WeightOptions, open_for_packing
from modelpress.export.quantized import QuantizedModel
from tests.helpers.foreign_onnx import INFO, MODELS, NODE, arrays_of, every_operator, foreign, saved


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def identity(tensors, **options):
    return foreign([NODE("Identity", ["x"], ["y"])], tensors, **options)


def described(tensor):
    return tensor.dtype, tensor.shape, tensor.tobytes()


@pytest.mark.parametrize("name", MODELS)
def test_every_initializer_is_found_in_file_order(path, name):
    model = MODELS[name]()
    source = open_onnx(saved(model, path))
    expected = arrays_of(model)
    assert list(source.tensors)[: len(expected)] == list(expected)
    for tensor, array in expected.items():
        assert described(source.tensors[tensor]) == described(array)
        assert source.tensors.spec(tensor).shape == array.shape
    assert not source.graph.graph.initializer


def test_the_graph_is_what_remains(path):
    model = every_operator()
    source = open_onnx(saved(model, path))
    del model.graph.initializer[:], model.graph.node[0]
    assert source.graph == model


def test_raw_data_are_views_of_the_file(path):
    array = open_onnx(saved(every_operator(), path)).tensors["gemm"]
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_a_view_outlives_its_source_and_the_file(path):
    array = open_onnx(saved(every_operator(), path)).tensors["gemm"]
    path.unlink()
    assert_array_equal(array, arrays_of(every_operator())["gemm"])


def test_big_constants_become_tensors_and_small_ones_stay(path):
    source = open_onnx(saved(every_operator(), path))
    assert source.tensors["in_a_node"].shape == (10, 20)
    assert [node.output[0] for node in source.graph.graph.node if node.op_type == "Constant"] == ["one"]


def constant(**options):
    values = numpy_helper.from_array(np.ones((65, 4), np.float32))
    return foreign([NODE("Constant", [], ["y"], value=values)], {}, **options)


def test_a_constant_that_is_an_output_of_the_graph_stays(path):
    assert not open_onnx(saved(constant(y=(65, 4)), path)).tensors


def test_constants_of_old_models_become_tensors_too(path):
    model = every_operator()
    model.ir_version = 3  # every initializer had to be an input as well
    source = open_onnx(saved(model, path))
    assert "in_a_node" in source.tensors
    assert source.graph.ir_version == 4


def test_constants_in_functions_and_of_other_domains_stay(path):
    values = numpy_helper.from_array(np.ones((65, 4), np.float32))
    nodes = [NODE("Constant", [], ["c"], value=values, domain="else.where"), NODE("Add", ["x", "c"], ["y"])]
    assert not open_onnx(saved(foreign(nodes, {}), path)).tensors


def test_initializers_of_nested_graphs_become_constants(path):
    source = open_onnx(saved(MODELS["branching"](), path))
    assert list(source.tensors) == ["zero", "shared"]
    for i, attribute in enumerate(source.graph.graph.node[-1].attribute):
        assert not attribute.g.initializer
        assert attribute.g.node[0].op_type == "Constant"
        shift = numpy_helper.to_array(attribute.g.node[0].attribute[0].t)
        assert shift[0, 0] == (1 - i)  # attributes are sorted: the else branch first


@pytest.mark.parametrize(("ir_version", "inputs"), [(3, ["x"]), (4, ["x", "w"])])
def test_an_initializer_that_is_an_input_as_well_stays_one_where_it_can_be_fed(path, ir_version, inputs):
    model = identity({"w": np.ones(3, np.float32)}, ir_version=ir_version)
    model.graph.input.append(INFO("w", TensorProto.FLOAT, [3]))
    source = open_onnx(saved(model, path))
    assert list(source.tensors) == ["w"]
    assert [value.name for value in source.graph.graph.input] == inputs


def test_big_weights_of_nested_graphs_become_tensors_under_names_of_their_own(path):
    model = MODELS["branching"]()
    for attribute in model.graph.node[-1].attribute:
        big = numpy_helper.from_array(np.full((65, 4), attribute.name == "then_branch", np.float32), "shift")
        attribute.g.initializer[0].CopyFrom(big)
        attribute.g.output[0].type.tensor_type.shape.dim[0].dim_value = 65
    source = open_onnx(saved(model, path))
    assert list(source.tensors) == ["zero", "shared", "shift_1", "shift_2"]
    reads = [a.g.node[0].input[1] for a in source.graph.graph.node[-1].attribute]
    for attribute, name in zip(source.graph.graph.node[-1].attribute, reads, strict=True):
        assert source.tensors[name][0, 0] == (attribute.name == "then_branch")


def test_nodes_are_sorted(path):
    nodes = [NODE("Neg", ["b"], ["y"]), NODE("Abs", ["a"], ["b"]), NODE("Relu", ["x"], ["a"])]
    source = open_onnx(saved(foreign(nodes, {}), path))
    assert [node.op_type for node in source.graph.graph.node] == ["Relu", "Abs", "Neg"]


def test_nodes_in_a_circle_are_refused(path):
    nodes = [NODE("Add", ["x", "b"], ["a"]), NODE("Neg", ["a"], ["b"]), NODE("Relu", ["a"], ["y"])]
    with pytest.raises(ModelError, match="topologically sorted"):
        open_for_packing(saved(foreign(nodes, {}), path), WeightOptions())


def test_dimensions_may_be_packed(path):
    model = identity([])
    tensor = length_prefix(1, 2) + bytes([2, 3, 0x10, 1]) + length_prefix(8, 1) + b"w" + length_prefix(9, 24)
    tensor += np.arange(6, dtype="<f4").tobytes()
    model.graph.MergeFromString(length_prefix(5, len(tensor)) + tensor)
    assert_array_equal(open_onnx(saved(model, path)).tensors["w"], np.arange(6, dtype="f4").reshape(2, 3))


# Data in other files


@pytest.fixture
def external(path):
    model = every_operator()
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def changed(path, change):
    """The model with every external tensor's entries changed."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        change(entries)
        del tensor.external_data[:]
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
    return saved(model, path)


def test_external_data_are_refused_unless_allowed(external):
    with pytest.raises(InputError, match=r"model\.onnx: conv\.w: its data lie in another file; pass --allow"):
        open_onnx(external)


def test_external_data_are_followed_if_allowed(external):
    source = open_onnx(external, allow_external_data=True)
    for name, array in arrays_of(every_operator()).items():
        assert_array_equal(source.tensors[name], array, strict=True)
    assert source.tensors["in_a_node"].shape == (10, 20)
    folder = external.parent
    assert source.tensors.size_bytes == sum(
        (folder / n).stat().st_size for n in ("model.onnx", "weights.bin")
    )


@pytest.mark.parametrize(
    "location",
    ["/etc/hostname", "../weights.bin", "sub/../weights.bin", "C:\\w.bin", "..\\w.bin", "", "a\0b"],
)
def test_locations_that_leave_the_folder_are_refused(external, location):
    with pytest.raises(InputError, match="expected a path inside the model's folder"):
        open_onnx(changed(external, lambda e: e.update(location=location)), allow_external_data=True)


def test_links_out_of_the_folder_are_refused(external, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "weights.bin"
    (external.parent / "weights.bin").rename(outside)
    (external.parent / "weights.bin").symlink_to(outside)
    with pytest.raises(InputError, match="lie outside the model's folder; copy the file into it"):
        open_onnx(external, allow_external_data=True)


def test_links_inside_the_folder_are_followed(external):
    (external.parent / "weights.bin").rename(external.parent / "blob")
    (external.parent / "weights.bin").symlink_to("blob")
    assert_array_equal(
        open_onnx(external, allow_external_data=True).tensors["gemm"], arrays_of(every_operator())["gemm"]
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda e: e.update(location="missing.bin"), "are not there"),
        (lambda e: e.update(location="circle"), "are not there"),
        (lambda e: e.update(location="folder"), "are no file"),
        (lambda e: e.update(offset="99999999"), "the file has 3,232: copy it again"),
        (lambda e: e.update(offset="-4"), "offset of its external data is '-4'"),
        (lambda e: e.update(length="1e3"), "length of its external data is '1e3'"),
        (lambda e: e.update(length="9" * 5000), "length of its external data"),
        (lambda e: e.update(length="4"), "external data have 4 bytes; its shape asks for 864"),
        (lambda e: e.update({str(i): "" for i in range(20)}), "in many places"),
    ],
)
def test_external_data_that_are_not_as_described_are_refused(external, change, reason):
    (external.parent / "folder").mkdir()
    (external.parent / "circle").symlink_to("circle")
    with pytest.raises(InputError, match=reason):
        open_onnx(changed(external, change), allow_external_data=True)


def test_a_short_external_file_is_refused(external):
    weights = external.parent / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match="the file has 3,231: copy it again"):
        open_onnx(external, allow_external_data=True)


def test_external_constants_of_nested_graphs_are_refused(path):
    model = MODELS["branching"]()
    shift = model.graph.node[-1].attribute[0].g.initializer[0]
    shift.data_location = TensorProto.EXTERNAL
    shift.external_data.add(key="location", value="model.onnx")
    with pytest.raises(InputError, match="a constant inside a node lies in another file"):
        open_onnx(saved(model, path), allow_external_data=True)


# Refusals


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n rest", "0 graphs|damaged or no ONNX model"),
        (b"hello world, this is text", "damaged or no ONNX model"),
        (b"\x08\x07", "0 graphs; expected an ONNX model with one"),
        (b"\x3a\x00\x3a\x00", "2 graphs; expected an ONNX model with one"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "damaged or no ONNX model"),
        (b"\x3a\x80", "a number does not end"),
        (b"\x08" + b"\x80" * 20 + b"\x00", "a number does not end"),
        (b"\x3b\x3c", "wire type 3"),
        (b"\x02\x00", "field 0"),
    ],
)
def test_files_that_are_no_onnx_model_are_refused(path, content, reason):
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"model.onnx: .*({reason})"):
        open_onnx(path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.onnx"):
        with pytest.raises(InputError, match="cannot be read"):
            open_onnx(path)


def tensor_with(**fields):
    given = {"name": "w", "data_type": TensorProto.FLOAT, "dims": [2], "raw_data": bytes(8)}
    return TensorProto(**{key: value for key, value in (given | fields).items() if value is not None})


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (tensor_with(raw_data=bytes(7)), r"w: 7 bytes of data; shape \(2,\) asks for 8"),
        (tensor_with(dims=[2**31, 2**31]), r"w: shape .* expected up to 8 axes"),
        (tensor_with(dims=[2**62, 0]), "w: shape"),
        (tensor_with(dims=[-1]), r"w: shape \(-1,\)"),
        (tensor_with(dims=[1] * 9), "expected up to 8 axes"),
        (tensor_with(float_data=[1, 2]), "w: its data occur twice"),
        (tensor_with(segment=TensorProto.Segment(begin=0, end=1)), "segments"),
    ],
)
def test_tensors_whose_data_do_not_fit_are_refused(path, tensor, reason):
    with pytest.raises(InputError, match=reason):
        open_onnx(saved(identity([tensor]), path))


@pytest.mark.parametrize(
    "tensor",
    [
        tensor_with(raw_data=None),
        tensor_with(raw_data=None, float_data=[1.0]),
        tensor_with(raw_data=None, int64_data=[1, 2]),
        tensor_with(raw_data=None, dims=[2**32 - 1], float_data=[1.0]),
    ],
)
def test_typed_data_that_do_not_fit_are_refused_when_read(path, tensor):
    source = open_onnx(saved(identity([tensor]), path))
    with pytest.raises(InputError, match="w: tensor data are damaged"):
        source.tensors["w"]


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (tensor_with(data_type=99), "99"),
        (tensor_with(data_type=0), "UNDEFINED"),
    ],
)
def test_types_that_cannot_be_packed_are_named(path, tensor, kind):
    with pytest.raises(ModelError, match=f"w: elements of type {kind} cannot be packed"):
        open_onnx(saved(identity([tensor]), path))


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128])
def test_texts_and_complex_numbers_stay_in_the_graph(path, kind):
    values = [b"a", b"text"] if kind == TensorProto.STRING else [1 + 2j, -3j]
    tensor = helper.make_tensor("w", kind, [2], values)
    source = open_onnx(saved(identity([tensor]), path))
    assert "w" not in source.tensors
    assert source.graph.graph.node[0].attribute[0].t == tensor
    assert source.graph.graph.node[0].output == ["w"]

    model = identity([tensor])
    model.graph.input.append(helper.make_tensor_value_info("w", kind, [2]))
    with pytest.raises(InputError, match="w: texts and complex numbers are kept in the graph"):
        open_onnx(saved(model, path))


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2])
@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_elements_of_few_bits_are_read_and_written_as_onnx_has_them(path, kind, raw, count):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    values = np.arange(-8, count - 8).astype(np.int8).astype(dtype)
    tensor = numpy_helper.from_array(values, "w")
    if not raw:
        tensor = helper.make_tensor("w", kind, [count], values.astype(np.int8).tolist())
    source = open_onnx(saved(identity([tensor]), path))
    np.testing.assert_array_equal(source.tensors["w"].astype(np.int8), values.astype(np.int8))

    file = io.BytesIO()
    write_onnx_stream(file, QuantizedModel(source.graph, source.tensors))
    restored = onnx.ModelProto.FromString(file.getvalue()).graph.initializer[0]
    assert restored == numpy_helper.from_array(values, "w")


@pytest.mark.parametrize("name", ["gemm.b", "in_a_node"])
def test_names_that_are_no_text_are_refused(path, name):
    path.write_bytes(every_operator().SerializeToString().replace(name.encode(), b"\xff" * len(name)))
    with pytest.raises(InputError, match="is no UTF-8 text"):
        open_onnx(path)


def test_sparse_initializers_are_refused(path):
    model = identity({})
    model.graph.sparse_initializer.add().values.name = "w"
    with pytest.raises(InputError, match="the graph holds sparse initializers; store them as dense ones"):
        open_onnx(saved(model, path))


def test_two_tensors_of_one_name_are_refused(path):
    with pytest.raises(InputError, match="two tensors are called 'w'"):
        open_onnx(saved(identity([tensor_with(), tensor_with()]), path))


def test_a_nested_initializer_that_is_an_input_is_refused(path):
    model = MODELS["branching"]()
    model.graph.node[-1].attribute[0].g.input.append(INFO("shift", TensorProto.FLOAT, [1, 4]))
    with pytest.raises(InputError, match="shift: is both input and initializer of a graph inside If"):
        open_onnx(saved(model, path))


def test_floods_of_tiny_fields_are_refused(path, monkeypatch):
    monkeypatch.setattr(protobuf_wire, "MAX_FIELDS", 100)
    path.write_bytes(length_prefix(7, 202) + (pack_varint(5 << 3) + b"\0") * 101)
    with pytest.raises(InputError, match="more than 100 fields"):
        open_onnx(path)


def test_graphs_that_are_huge_without_their_weights_are_refused(path, monkeypatch):
    monkeypatch.setattr(onnx_tensor_scan, "MAX_SHELL_BYTES", 1000)
    with pytest.raises(InputError, match="GraphProto takes more than 1,000 bytes without its weights"):
        open_onnx(saved(identity({}, y=("N",) * 1000), path))


# Damage


def read_everything(path):
    """What `pack` reads of a file: graph, checker, all tensors."""
    tensors = open_for_packing(path, WeightOptions(min_elements=0)).tensors
    return [tensors[name] for name in tensors]


def small_foreign():
    big = numpy_helper.from_array(np.arange(70, dtype=np.float32).reshape(5, 14))
    nodes = [
        NODE("Constant", [], ["c"], value=big),
        NODE("MatMul", ["x", "w"], ["a"]),
        NODE("MatMul", ["a", "c"], ["y"]),
    ]
    tensors = [
        numpy_helper.from_array(np.arange(20, dtype=np.float32).reshape(4, 5), "w"),
        helper.make_tensor("t", TensorProto.INT64, [3], [1, -2, 3]),
    ]
    return foreign(nodes, tensors, y=("N", 14)).SerializeToString()


def test_every_truncation_is_refused_or_read(tmp_path):
    whole, path = small_foreign(), tmp_path / "m.onnx"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with contextlib.suppress(InputError, ModelError):
            read_everything(path)
            assert length > len(whole) - 25  # only metadata are lost


@given(st.data())
def test_damage_raises_only_typed_errors(tmp_path_factory, data):
    damaged = bytearray(small_foreign())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(damaged)
    with contextlib.suppress(InputError, ModelError):
        read_everything(path)
