import numpy as np
import onnx
import pytest

from modelpress.export.graphs.entering.opset import in_opset
from modelpress.export.graphs.parts import opset_of
from modelpress.export.onnx_flavours import emit
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate
from modelpress.export.post_training.calibration import calibrate
from modelpress.export.runtime import open_session, run_batched
from tests.helpers.models import small_model

IMAGES = np.random.default_rng(0).standard_normal((5, 2, 6, 6)).astype(np.float32)


@pytest.mark.parametrize("flavour", ["float", "sparse", "int8-sparse"])
def test_a_flavour_of_a_newer_opset_computes_the_same(flavour):
    outputs = []
    for model in (small_model(), in_opset(small_model(), 19)):
        ranges = calibrate(model, activations_to_calibrate(model), IMAGES) if "int8" in flavour else None
        made = emit(model, flavour=flavour, ranges=ranges)
        onnx.checker.check_model(made, full_check=True)
        outputs.append(run_batched(open_session(made.SerializeToString()), IMAGES).tobytes())

    assert (opset_of(made), made.ir_version) == (19, 9)
    assert outputs[0] == outputs[1]


def test_a_model_that_is_as_new_stays_as_it_is():
    model = small_model()
    assert in_opset(model, opset_of(model.graph)) is model
