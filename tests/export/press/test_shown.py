"""What objects print: a few lines and a small table, never arrays and graphs; and which name is nearest."""

import pickle

import numpy as np
import pytest

from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.export.errors import ModelpressError, NoSuchTensor
from modelpress.export.graphs.source import open_onnx
from modelpress.export.onnx_flavours import write_onnx
from modelpress.export.post_training.packing import WeightOptions, open_for_packing
from modelpress.export.press.reading import open_artifact, read_artifact
from modelpress.export.press.writing import write_artifact
from modelpress.export.quantized import QuantizedModel
from tests.helpers.models import small_model


@pytest.fixture
def files(tmp_path):
    write_artifact(tmp_path / "m.press", small_model())
    write_onnx(tmp_path / "m.onnx", small_model(), flavour="float")
    return tmp_path


def test_everything_that_holds_weights_prints_a_few_lines(files):
    with open_artifact(files / "m.press") as artifact:
        lazy = artifact.lazy_model()
        shown = [artifact, lazy, lazy.tensors, artifact.model(), artifact.model().tensors]
        shown += [
            *artifact.model().quantized().values(),
            open_model(files / "m.onnx"),
            open_onnx(files / "m.onnx"),
        ]
        for thing in shown:
            assert len(repr(thing).splitlines()) <= 8
            assert len(repr(thing)) < 500
            assert repr(thing) == str(thing)


def test_a_model_says_what_it_holds():
    assert repr(small_model()).splitlines() == [
        "QuantizedModel",
        "  graph: small, 5 nodes, opset 13",
        "  inputs: images",
        "  outputs: logits",
        "  quantized: 1 in 3 bits, 1 in 4 bits",
        "  tensors: 4: conv.weight, conv.bias, fc.weight, …",
    ]
    assert repr(small_model().tensors["conv.weight"]).splitlines() == [
        "QuantizedTensor",
        "  shape: 4x2x3x3",
        "  codes: 4 bits, asymmetric, one scale, batch norm folded in",
        f"  zeros: {np.mean(small_model().tensors['conv.weight'].dequantize() == 0):.2%}",
        "  decoded: float32",
    ]


def test_a_lazy_model_decodes_nothing_to_print_itself(files):
    with open_artifact(files / "m.press") as artifact:
        lazy = artifact.lazy_model()
    assert "4: conv.weight" in repr(lazy)  # the file is closed


def test_notebooks_get_a_table_with_names_escaped():
    model = small_model()
    model.graph.graph.name = "<script>alert(1)</script>"
    page = model._repr_html_()
    assert page.startswith("<table>")
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize("kind", ["decoded", "quantized", "lazy", "onnx", "to be packed"])
def test_a_missing_name_is_answered_with_the_nearest(files, kind):
    with open_artifact(files / "m.press") as artifact:
        tensors = {
            "decoded": lambda: read_artifact(files / "m.press").tensors,
            "quantized": lambda: read_artifact(files / "m.press").quantized(),
            "lazy": lambda: artifact.lazy_model().tensors,
            "onnx": lambda: open_onnx(files / "m.onnx").tensors,
            "to be packed": lambda: open_for_packing(files / "m.onnx", WeightOptions()).tensors,
        }[kind]()
        assert "conv.wieght" not in tensors
        assert tensors.get("conv.wieght") is None
        with pytest.raises(NoSuchTensor, match="^no tensor 'conv.wieght'; nearest: conv.weight$"):
            tensors["conv.wieght"]


def test_a_missing_name_is_an_error_of_ours_and_a_key_error():
    with pytest.raises(KeyError, match="no tensor 'w'; the model has none"):
        QuantizedModel(small_model().graph).tensors["w"]
    error = NoSuchTensor("b", {"a": np.ones(1)})
    assert isinstance(error, ModelpressError)
    assert str(pickle.loads(pickle.dumps(NoSuchTensor("b", ["a"])))) == str(error)
