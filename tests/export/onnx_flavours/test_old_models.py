"""Models of old opsets in the flavours that need a newer one."""

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper

from modelpress.export.errors import ModelError
from modelpress.export.graphs.entering.opset import in_opset
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.onnx_flavours import prepare
from modelpress.export.post_training.calibration import CalibrationOptions
from modelpress.export.post_training.packing import WeightOptions, open_for_packing
from modelpress.export.press.reading import decode_artifact
from modelpress.export.press.writing import encode_artifact
from modelpress.export.quantized import QuantizedModel, dense_array
from modelpress.export.runtime import open_session
from modelpress.toolkit.model_files.onnx_writing import calibrated_ranges
from tests.helpers.foreign_onnx import INFO, NODE, foreign, saved

RNG = np.random.default_rng(11)
IMAGES = RNG.standard_normal((5, 3, 8, 8)).astype(np.float32)


def old_model(opset):
    """Operators whose attributes became inputs, or whose defaults changed, in between; also inside an If."""

    def branch(name, scale):
        nodes = [NODE("Squeeze", ["c"], [f"{name}.s"], axes=[2, 3]), NODE("Softmax", [f"{name}.s"], [name])]
        return helper.make_graph(nodes, name, [], [INFO(name, TensorProto.FLOAT, None)])

    nodes = [
        NODE("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        NODE("Split", ["a"], ["left", "right"], axis=1, split=[8, 8]),
        NODE("Concat", ["right", "left"], ["b"], axis=1),
        NODE("ReduceSum", ["b"], ["c"], axes=[2, 3], keepdims=1),
        NODE("If", ["yes"], ["d"], then_branch=branch("t", 1.0), else_branch=branch("e", 2.0)),
        NODE("Unsqueeze", ["d"], ["u"], axes=[1]),
        NODE("MatMul", ["u", "v"], ["m"]),
        NODE("Softmax", ["m"], ["y"]),
    ]
    tensors = {
        "w": RNG.standard_normal((16, 3, 3, 3)).astype(np.float32),
        "v": RNG.standard_normal((16, 10)).astype(np.float32),
        "yes": np.bool_(True),
    }
    return foreign(
        nodes, tensors, x=("N", 3, 8, 8), y=("N", 1, 10), opset=opset, ir_version=3 if opset < 9 else 6
    )


def packed(model, path):
    source = open_for_packing(saved(model, path), WeightOptions(min_elements=100))
    return decode_artifact(encode_artifact(source.model))


def outputs_of(model):
    whole = with_initializers(model.graph, {name: dense_array(t) for name, t in model.tensors.items()})
    return open_session(whole.SerializeToString()).run(None, {"x": IMAGES})[0]


@pytest.mark.parametrize("opset", [8, 11, 12])
def test_every_flavour_of_an_old_model_computes_what_it_does(opset, tmp_path):
    model = packed(old_model(opset), tmp_path / "m.onnx")
    expected = outputs_of(model)
    assert np.ptp(expected, axis=0).max() > 0.05  # the outputs depend on the inputs

    for flavour in ("weight-only", "sparse", "int8", "int8-sparse"):
        ranges = calibrated_ranges(model, IMAGES, CalibrationOptions()) if "int8" in flavour else None
        emission = prepare(model, flavour=flavour, ranges=ranges)
        assert emission.notes[0] == f"converted from opset {opset} to 13, which flavour {flavour} needs"
        if ranges is None:
            assert_array_equal(outputs_of(emission.model), expected)
        else:
            assert_allclose(outputs_of(emission.model), expected, atol=0.05)


def test_the_converter_sees_no_large_tensor_and_all_come_back(tmp_path, monkeypatch):
    model = packed(old_model(11), tmp_path / "m.onnx")
    large = QuantizedModel(model.graph, {**model.tensors, "unread": np.ones(5000, np.float32)})
    convert = onnx.version_converter.convert_version

    def watched(stand_in, opset):
        assert stand_in.ByteSize() < 5000
        return convert(stand_in, opset)

    monkeypatch.setattr(onnx.version_converter, "convert_version", watched)
    converted = in_opset(large, 13)
    assert [*model.tensors, "unread"] == [name for name in converted.tensors if name in large.tensors]
    assert converted.tensors["w"].equals(model.tensors["w"])
    assert [value.name for value in converted.graph.graph.input] == ["x"]
    assert converted.graph.metadata_props == model.graph.metadata_props


def test_old_models_with_functions_are_refused_with_the_way_out(tmp_path):
    body = [NODE("Softmax", ["a"], ["o"])]
    function = helper.make_function("local", "F", ["a"], ["o"], body, [helper.make_opsetid("", 11)])
    model = foreign([NODE("F", ["x"], ["y"], domain="local")], {}, opset=11)
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    with pytest.raises(ModelError, match="local functions cannot be converted: inline them"):
        prepare(packed(model, tmp_path / "m.onnx"), flavour="sparse")
