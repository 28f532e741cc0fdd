"""Models from elsewhere in ONNX Runtime."""

import numpy as np
import onnx
import pytest

from modelpress.export.errors import InputError
from modelpress.export.runtime import open_session, run_batched


def model_with(*nodes, outputs=("y",), n_inputs=1):
    """A model of these nodes from input x (and x1, …) to the outputs named."""
    info = onnx.helper.make_tensor_value_info
    inputs = [info("x" if i == 0 else f"x{i}", 1, ("N", "C", "H", "W")) for i in range(n_inputs)]
    graph = onnx.helper.make_graph(list(nodes), "g", inputs, [info(name, 1, None) for name in outputs])
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 13)])


NODE = onnx.helper.make_node


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (model_with(NODE("GlobalAveragePool", ["x"], ["y"])), "one row of logits each"),
        (model_with(NODE("ReduceMean", ["x"], ["y"], axes=[1, 2, 3], keepdims=0)), "one row of logits each"),
        (model_with(NODE("ReduceMean", ["x"], ["y"], keepdims=0)), "one row of logits each"),
        (model_with(NODE("ReduceMean", ["x"], ["y"], axes=[0, 2], keepdims=0)), "one row of logits each"),
        (model_with(NODE("Relu", ["x"], ["y"]), NODE("Relu", ["x"], ["z"]), outputs="yz"), "2 outputs"),
        (model_with(NODE("Add", ["x", "x1"], ["y"]), n_inputs=2), r"2 inputs \(x, x1\)"),
        (model_with(NODE("Log", ["x"], ["l"]), NODE("Flatten", ["l"], ["y"])), "NaN or infinity"),
    ],
)
def test_models_without_a_table_of_logits_are_refused(model, reason):
    session = open_session(model.SerializeToString())
    with pytest.raises(InputError, match=reason):
        run_batched(session, np.full((5, 3, 2, 2), -1, np.float32))


def test_a_table_of_logits_is_taken():
    session = open_session(model_with(NODE("Flatten", ["x"], ["y"])).SerializeToString())
    images = np.arange(60, dtype=np.float32).reshape(5, 3, 2, 2)
    np.testing.assert_array_equal(run_batched(session, images, batch=2), images.reshape(5, 12))
