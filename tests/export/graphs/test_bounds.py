import numpy as np
import pytest
from onnx import TensorProto, helper

from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.export.errors import ArtifactError, InputError, ModelError
from modelpress.export.graphs import source
from modelpress.export.graphs.bounds import MAX_CALLS_DEEP, check_bounds
from modelpress.export.graphs.conventions import MAX_NODES
from modelpress.export.graphs.source import open_onnx
from modelpress.export.press.reading import decode_artifact, open_artifact
from modelpress.export.press.writing import encode_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.export.tensor_spec import MAX_TENSORS
from modelpress.toolkit.api import open_session
from tests.helpers.artifact_chunks import deflated, with_chunks
from tests.helpers.foreign_onnx import INFO, NODE, foreign, saved


def function(name, nodes):
    return helper.make_function("local", name, ["a"], ["o"], nodes, [helper.make_opsetid("local", 1)])


def calls(name, times):
    """Nodes that call a function several times, one after the other."""
    names = ["a", *(f"t{k}" for k in range(times - 1)), "o"]
    return [NODE(name, [names[k]], [names[k + 1]], domain="local") for k in range(times)]


def nested_calls(depth, times):
    """A model whose functions call each the next one so many times."""
    model = foreign([NODE("F0", ["x"], ["y"], domain="local")], {})
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.functions.extend(function(f"F{k}", calls(f"F{k + 1}", times)) for k in range(depth))
    model.functions.append(function(f"F{depth}", [NODE("Relu", ["a"], ["o"])]))
    return model


@pytest.mark.parametrize("depth", [17, 40])
def test_functions_that_double_are_refused_by_their_number_of_nodes(depth):
    with pytest.raises(ModelError, match=r"more than 131,072 nodes once its functions are written out"):
        check_bounds(nested_calls(depth, times=2))


def test_as_many_nodes_as_are_allowed_pass():
    check_bounds(nested_calls(14, times=2))
    check_bounds(nested_calls(MAX_CALLS_DEEP - 1, times=1))
    check_bounds(foreign([NODE("Relu", ["x"], ["y"])] * MAX_NODES, {}))


def test_more_tensors_than_an_artifact_holds_are_refused(tmp_path):
    model = foreign([NODE("Relu", ["x"], ["y"])], [TensorProto()] * (MAX_TENSORS + 1))
    with pytest.raises(ModelError, match="more than 65,536 tensors"):
        check_bounds(model)
    with pytest.raises(InputError, match=r"m\.onnx: the graph has more than 65,536 tensors"):
        open_model(saved(model, tmp_path / "m.onnx"))


def test_calls_in_a_circle_or_too_deep_are_refused():
    circle = nested_calls(2, times=1)
    circle.functions[2].node[0].CopyFrom(NODE("F1", ["a"], ["o"], domain="local"))
    with pytest.raises(ModelError, match="'F1' of the model calls itself"):
        check_bounds(circle)
    with pytest.raises(ModelError, match="more than 64 deep"):
        check_bounds(nested_calls(5000, times=1))
    twice = nested_calls(2, times=1)
    twice.functions.append(twice.functions[0])
    with pytest.raises(ModelError, match="two functions of the model"):
        check_bounds(twice)


def test_nodes_of_graphs_inside_nodes_and_of_functions_called_there_count():
    model = nested_calls(14, times=2)
    branch = helper.make_graph(
        [NODE("F0", ["x"], ["b"], domain="local")] * 4, "branch", [], [INFO("b", 1, None)]
    )
    del model.graph.node[:]
    model.graph.node.append(NODE("If", ["c"], ["y"], then_branch=branch, else_branch=branch))
    with pytest.raises(ModelError, match="once its functions are written out"):
        check_bounds(model)


def test_nodes_and_tensors_are_counted_before_any_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_NODES", 100)
    monkeypatch.setattr(source, "MAX_TENSORS", 50)
    looked_at = []
    for name in ("scan_tensor", "scan_constant"):
        monkeypatch.setattr(source, name, lambda *_, **__: looked_at.append(1))

    many_nodes = saved(
        foreign([NODE("Relu", ["x"], ["y"], name="n" * 50)] * 101, {}), tmp_path / "nodes.onnx"
    )
    with pytest.raises(InputError, match=r"nodes\.onnx: the graph has more than 100 nodes"):
        open_onnx(many_nodes)
    tensors = {f"w{k}": np.ones(2, np.float32) for k in range(51)}
    many_tensors = saved(foreign([NODE("Relu", ["x"], ["y"])], tensors), tmp_path / "tensors.onnx")
    with pytest.raises(InputError, match=r"tensors\.onnx: the graph has more than 50 tensors"):
        open_onnx(many_tensors)
    assert not looked_at


def test_an_artifact_with_such_a_graph_is_refused(tmp_path):
    model = nested_calls(40, times=2)
    data = with_chunks(GRPH=deflated(model.SerializeToString()))
    with pytest.raises(ArtifactError, match="131,072 nodes"):
        decode_artifact(data)
    (tmp_path / "m.press").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"m\.press: the graph cannot be used: .*131,072 nodes"):
        open_artifact(tmp_path / "m.press")
    with pytest.raises(ModelError, match="131,072 nodes"):
        encode_artifact(QuantizedModel(model))


def test_a_session_is_not_opened_of_such_a_model(tmp_path):
    with pytest.raises(ModelError, match="131,072 nodes"):
        open_session(saved(nested_calls(40, times=2), tmp_path / "m.onnx"))


def test_the_depth_of_calls_does_not_depend_on_the_order_of_functions():
    model = nested_calls(MAX_CALLS_DEEP, times=1)
    backwards = list(reversed(model.functions))
    for functions in (list(model.functions), backwards):
        del model.functions[:]
        model.functions.extend(functions)
        with pytest.raises(ModelError, match="more than 64 deep"):
            check_bounds(model)
