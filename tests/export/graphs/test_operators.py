"""Which operators have a weight, and who reads which tensor."""

import numpy as np
import pytest

from modelpress.export.graphs.index import GraphIndex
from modelpress.export.graphs.operators import WEIGHTED, layer_weights, weight_inputs
from tests.helpers.foreign_onnx import MODELS, NODE, foreign

SHAPES = {"Conv": (8, 3, 3, 3), "ConvTranspose": (3, 8, 2, 2), "Gather": (8, 5)}


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose", "Gather"])
def test_the_channel_axis_counts_the_outputs(operator):
    node = NODE(operator, ["w", "x"] if operator == "Gather" else ["x", "w"], ["y"])
    (found,) = weight_inputs(node)
    assert node.input[found.place] == "w"
    assert SHAPES[operator][found.channel_axis(node, n_axes=len(SHAPES[operator]))] == 8


@pytest.mark.parametrize(("transposed", "right", "left"), [(0, 1, 0), (1, 0, 1)])
def test_a_transposed_matrix_has_its_channels_along_the_other_axis(transposed, right, left):
    node = NODE("Gemm", ["a", "b"], ["y"], transA=transposed, transB=transposed)
    axes = {node.input[found.place]: found.channel_axis(node, n_axes=2) for found in weight_inputs(node)}
    assert axes == {"b": right, "a": left}


def test_matrices_in_batches_count_their_axes_from_the_end():
    node = NODE("MatMul", ["a", "b"], ["y"])
    assert [found.channel_axis(node, n_axes=4) for found in weight_inputs(node)] == [3, 2]


def test_operators_of_other_domains_have_no_weight():
    assert not list(weight_inputs(NODE("Conv", ["x", "w"], ["y"], domain="com.example")))
    assert not list(weight_inputs(NODE("QGemm", ["x"] * 6, ["y"])))
    assert len(list(weight_inputs(NODE("QGemm", ["x"] * 6, ["y"], domain="com.microsoft")))) == 1


def test_inputs_that_a_node_leaves_out_are_no_weights():
    assert layer_weights(NODE("Conv", ["x"], ["y"])) == []


def test_layers_in_float_leave_out_tables_and_integers():
    assert layer_weights(NODE("Gather", ["table", "x"], ["y"])) == []
    assert layer_weights(NODE("QLinearConv", list("abcdefgh"), ["y"])) == []


def test_scales_follow_the_weight_of_an_operator_on_integers():
    on_integers = [found for line in WEIGHTED.values() for found in line if found.scale is not None]
    assert on_integers
    assert all(found.scale == found.place + 1 for found in on_integers)


def test_what_a_nested_graph_reads_is_kept_and_read():
    index = GraphIndex.of_model(MODELS["branching"]())
    assert index.reads["shared"] == 2
    assert "shared" in index.kept
    assert index.only_reader("total") == 1


def test_a_tensor_read_twice_by_one_node_has_no_only_reader():
    model = foreign([NODE("Relu", ["x"], ["a"]), NODE("Add", ["a", "a"], ["y"])], {"w": np.float32(1)})
    index = GraphIndex.of_model(model)
    assert index.only_reader("a") is None
    assert index.only_reader("y") is None  # an output of the graph
