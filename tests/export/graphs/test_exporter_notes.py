"""What exporters note beside nodes goes into no small file."""

import numpy as np
import pytest
from onnx import parser

from modelpress.export.onnx_flavours import emit
from modelpress.export.quantized import QuantizedModel

PATH = "/home/somebody/train.py, line 7"
TEXT = """<ir_version: 10, opset_import: ["": 17]> g (float[N, 4] x) => (float[N, 8] y)
{ h = MatMul(x, w)  y = Relu(h) }"""


@pytest.fixture
def model():
    graph = parser.parse_model(TEXT)
    graph.metadata_props.add(key="licence", value="mine")
    for node in graph.graph.node:
        node.doc_string = PATH
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=PATH)
    graph.graph.input[0].metadata_props.add(key="kind", value=PATH)
    weight = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    return QuantizedModel(graph, {"w": weight})


@pytest.mark.parametrize("flavour", ["weight-only", "sparse", "int8", "int8-sparse"])
def test_notes_of_exporters_are_left_out_and_the_models_own_stay(model, flavour):
    before = model.graph.SerializeToString()
    ranges = {"x": (-1.0, 1.0), "y": (0.0, 2.0)}
    made = emit(model, flavour=flavour, ranges=ranges)
    assert PATH.encode() not in made.SerializeToString()
    assert {entry.key for entry in made.metadata_props} == {"licence", "modelpress.flavour"}
    assert model.graph.SerializeToString() == before


def test_the_float_model_is_as_its_exporter_wrote_it(model):
    assert PATH.encode() in emit(model, flavour="float").SerializeToString()
