"""What cannot be firmware is named before anything is written."""

import re

import numpy as np
import pytest
from onnx import helper

from modelpress.export.errors import InputError, ModelError
from modelpress.export.firmware.folder import check_target
from modelpress.export.firmware.generating import generate
from tests.export.firmware.test_operators import residual
from tests.helpers.firmware import Layers, make


def test_operators_without_a_form_are_all_named(tmp_path):
    layers = Layers()
    x = layers.conv("x", "a", 4, 3)
    layers.tensors["scales"] = np.array([1, 1, 2, 2], np.float32)
    x = layers.add("Resize", [x, "", "scales"], "larger", mode="nearest")
    x = layers.add("Transpose", [layers.conv(x, "b", 4, 4)], "turned", perm=[0, 1, 3, 2])
    layers.conv(x, "y", 2, 4, relu=False)
    with pytest.raises(ModelError, match=r"no form for Resize \(larger\); Transpose \(q\d+\)"):
        make(tmp_path / "fw", layers.model(3, 9, 9))
    assert not (tmp_path / "fw").exists()


def test_sizes_that_are_not_fixed_are_refused(tmp_path):
    model = residual(Layers())
    model.graph.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    expected = r"input x has shape \(N, 3, height, 10\); firmware needs every axis but the first fixed"
    with pytest.raises(ModelError, match=expected):
        generate(model, _ranges(model))


def _ranges(model):
    from modelpress.export.onnx_flavours.int8 import activations_to_calibrate

    return dict.fromkeys(activations_to_calibrate(model), (-1.0, 1.0))


def test_activations_that_are_not_calibrated_are_refused():
    with pytest.raises(InputError, match="ranges must be calibrated on data"):
        generate(residual(Layers()), None)


def test_float_at_the_end_is_named():
    layers = Layers()
    layers.add("Erf", [layers.gemm("x", "a", 4, 6)], "y")
    model = layers.model(6)
    with pytest.raises(ModelError, match=re.escape("Erf (y) at the end, which computes in float")):
        generate(model, _ranges(model))


def test_two_inputs_are_refused():
    layers = Layers()
    layers.gemm(layers.add("Add", ["x", "z"], "s"), "y", 4, 6)
    model = layers.model(6)
    model.graph.graph.input.append(helper.make_tensor_value_info("z", 1, ["N", 6]))
    with pytest.raises(ModelError, match="2 inputs and 1 outputs"):
        generate(model, _ranges(model))


def test_folder_with_other_files_stays(tmp_path):
    (tmp_path / "model.c").write_text("")
    with pytest.raises(InputError, match="is not empty; pass --overwrite"):
        check_target(tmp_path, overwrite=False)
    check_target(tmp_path, overwrite=True)
    (tmp_path / "main.c").write_text("")
    with pytest.raises(InputError, match="holds main.c, which is no part of firmware"):
        check_target(tmp_path, overwrite=True)
