import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from modelpress.benchmarks.audits.first_difference import unoptimised_session
from modelpress.benchmarks.audits.fusion import fusion_audit
from modelpress.benchmarks.audits.optimised_graph import optimised_graph
from modelpress.export.errors import InputError
from modelpress.export.onnx_flavours import emit
from modelpress.export.runtime import open_session
from tests.helpers.graph_sketch import Sketch, input_of
from tests.helpers.models import small_model

RUNTIME = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
pytestmark = pytest.mark.skipif(RUNTIME < (1, 24), reason="older releases of ONNX Runtime fuse less")

FROM_0 = np.uint8(0)
CHANNELS = np.linspace(0.001, 0.02, 8, dtype=np.float32)


def audited(model):
    return fusion_audit(model.SerializeToString(), name="model")


def one(audit, op):
    found = [node for node in audit.nodes if node.op == op]
    assert len(found) == 1
    return found[0]


def quantized_conv(sketch, weight, *, before=FROM_0, after=FROM_0, relu=True):
    x = sketch.conv(sketch.both("x", before), weight)
    return sketch.both(sketch.node("Relu", x) if relu else x, after)


def two_ways(sketch, x):
    return sketch.both(sketch.node("Add", sketch.both(x), sketch.node("Relu", x)))


def test_a_well_quantized_model_has_nothing_to_say():
    s = Sketch()
    x = quantized_conv(s, s.weight(scale=CHANNELS, axis=0))
    x = s.both(s.node("Relu", s.node("Add", x, s.both("x"))))
    x = s.both(s.node("Flatten", s.both(s.node("GlobalAveragePool", x))))
    s.both(s.node("Gemm", x, s.weight((4, 8), scale=CHANNELS[:4], axis=0), s.floats(4), transB=1))
    audit = audited(s.model())
    assert all(node.integer and not node.reason for node in audit.nodes)
    assert [(node.op, node.runs_as) for node in audit.nodes] == [
        ("Conv", "QLinearConv"),
        ("Relu", "QLinearConv"),
        ("Add", "QLinearAdd"),
        ("Relu", "QLinearAdd"),
        ("GlobalAveragePool", "QLinearGlobalAveragePool"),
        ("Gemm", "QGemm"),
    ]
    assert "1 of 1 Conv compute on integers (QLinearConv)" in audit.summary
    assert audit.emitted["DequantizeLinear"] == 9
    assert audit.optimised["DequantizeLinear"] == 1


def test_every_node_of_an_unnamed_float_model_is_found_again():
    audit = audited(emit(small_model(), flavour="float"))
    assert {node.op for node in audit.nodes} == {"Conv", "Relu", "GlobalAveragePool", "Gemm"}
    conv, relu = one(audit, "Conv"), one(audit, "Relu")
    assert conv.runs_as == relu.runs_as  # the rectifier is part of the convolution
    assert conv.runs_as in audit.optimised
    assert not any(node.integer or node.reason for node in audit.nodes)
    assert audit.summary[0].startswith("float model")


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (lambda s: s.weight(zero_point=np.int8(3)), "zero point of the weights is not 0"),
        (lambda s: s.weight(zero_point=np.uint8(128)), "weights are uint8"),
        (lambda s: s.weight(scale=CHANNELS, axis=1), "axis 1; .* wrong results"),
        (lambda s: s.weight(scale=CHANNELS), "axis 1; .* wrong results"),
        (lambda s: s.floats(8, 8, 3, 3), "rounds it to 8 bits at load"),
    ],
)
def test_what_fuses_but_should_not_be_so_is_named(weight, reason):
    s = Sketch()
    quantized_conv(s, weight(s))
    conv = one(audited(s.model()), "Conv")
    assert (conv.runs_as, conv.integer) == ("QLinearConv", True)
    assert re.search(reason, conv.reason)
    assert conv.remedy


def test_scales_along_the_wrong_axis_do_give_wrong_results():
    images = np.random.default_rng(0).standard_normal((2, 8, 8, 8)).astype(np.float32)
    for axis, close in ((0, True), (1, False)):
        s = Sketch()
        s.both(s.conv(s.both("x", np.uint8(128)), s.weight(scale=CHANNELS, axis=axis)), np.uint8(128))
        model = s.model()
        sessions = unoptimised_session(model), open_session(model.SerializeToString())
        plain, fused = (session.run(None, {"x": images})[0] for session in sessions)
        assert (np.abs(plain - fused).max() <= 0.05) == close


FLOAT_CASES = {
    "no quantize after Relu": (
        lambda s: s.node("Relu", s.conv(s.both("x"), s.weight())),
        "Conv",
        "output is not quantized after Relu",
    ),
    "the output goes two ways": (
        lambda s: two_ways(s, s.conv(s.both("x"), s.weight())),
        "Conv",
        "its output is not quantized",
    ),
    "int8 after Relu": (
        lambda s: quantized_conv(s, s.weight(), before=np.int8(0), after=np.int8(0)),
        "Conv",
        "Relu is kept: int8",
    ),
    "a bounded activation": (
        lambda s: s.both(
            s.node(
                "Clip", s.conv(s.both("x"), s.weight()), s.constant(np.float32(0)), s.constant(np.float32(6))
            )
        ),
        "Conv",
        "Clip is kept",
    ),
    "input in float": (
        lambda s: s.both(s.node("Relu", s.conv("x", s.weight()))),
        "Conv",
        "an input of it is not quantized",
    ),
    "weight in float": (
        lambda s: s.conv(s.both("x"), s.floats(8, 8, 3, 3)),
        "Conv",
        "the weight is not quantized",
    ),
    "batch norm": (
        lambda s: s.both(
            s.node("BatchNormalization", s.conv(s.both("x"), s.weight()), *[s.floats(8) for _ in "abcd"])
        ),
        "Conv",
        "batch norm stands between",
    ),
    "batch norm itself": (
        lambda s: s.both(
            s.node("BatchNormalization", s.conv(s.both("x"), s.weight()), *[s.floats(8) for _ in "abcd"])
        ),
        "BatchNormalization",
        "batch norm is left",
    ),
    "mean by reduction": (
        lambda s: s.both(s.node("ReduceMean", s.both("x"), axes=[2, 3])),
        "ReduceMean",
        "ReduceMean has no integer form",
    ),
    "transposed convolution": (
        lambda s: s.both(s.node("ConvTranspose", s.both("x"), s.weight())),
        "ConvTranspose",
        "no integer form of ConvTranspose",
    ),
    "a scale that is no scalar": (
        lambda s: s.both(
            s.node(
                "Add",
                s.both("x", np.uint8([0]), scale=np.float32([0.1])),
                s.both("x"),
            )
        ),
        "Add",
        r"shape \[1\]",
    ),
    "half of an addition": (
        lambda s: s.both(s.node("Add", s.both("x"), s.node("Sigmoid", "x"))),
        "Add",
        "an input of it is not quantized",
    ),
    "rows instead of columns": (
        lambda s: s.both(s.node("MatMul", s.both("x"), s.weight((8, 8), scale=CHANNELS, axis=0))),
        "MatMul",
        "scales of the weight run along axis 0;",
    ),
}


@pytest.mark.parametrize("case", FLOAT_CASES)
def test_what_stays_in_float_is_named_with_a_remedy(case):
    build, op, reason = FLOAT_CASES[case]
    s = Sketch()
    build(s)
    node = one(audited(s.model()), op)
    assert not node.integer
    assert re.search(reason, node.reason), node.reason
    assert node.remedy or case == "transposed convolution"


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4])
def test_four_bit_weights_have_no_integer_kernel(kind):
    s = Sketch()
    w = s.node("DequantizeLinear", s.narrow(kind), s.constant(np.float32(0.1)))
    s.both(s.conv(s.both("x"), w))
    audit = audited(s.model(opset=21, ir_version=10))
    conv = one(audit, "Conv")
    assert f"no integer kernel takes {TensorProto.DataType.Name(kind)} weights" in conv.reason
    assert any("dequantized at every inference" in line for line in audit.summary)


def test_activations_of_16_bits_are_named():
    s = Sketch()
    s.both(s.conv(s.both("x", np.uint16(0)), s.weight()), np.uint16(0))
    assert "more than 8 bits" in one(audited(s.model(opset=21, ir_version=10)), "Conv").reason


def test_quantizing_before_relu_leaves_a_pair_between():
    s = Sketch()
    s.both(s.node("Relu", s.both(s.conv(s.both("x"), s.weight()), np.uint8(100))))
    audit = audited(s.model())
    assert audit.optimised["DequantizeLinear"] == 2
    assert "QuantizeLinear comes before Relu" in one(audit, "Conv").reason


def test_dequantized_weights_of_a_float_model_are_slow_and_cast_ones_are_not():
    s = Sketch()
    s.node("Relu", s.conv("x", s.weight()))
    audit = audited(s.model())
    assert audit.summary[0].startswith("float model")
    assert "dequantized at every inference" in one(audit, "Conv").reason
    assert any("1.7 to 2.2 times slower" in line for line in audit.summary)

    s = Sketch()
    codes = s.constant(np.ones((8, 8, 3, 3), np.uint8))
    s.conv("x", s.node("Mul", s.node("Cast", codes, to=TensorProto.FLOAT), s.constant(np.float32(0.1))))
    audit = audited(s.model())
    assert "Cast" not in audit.optimised
    assert [node.op for node in audit.nodes] == ["Conv"]  # decoding the weight is no work of the network
    assert not audit.nodes[0].reason


def test_initializers_that_are_inputs_keep_everything_from_folding():
    s = Sketch()
    codes = s.constant(np.ones((8, 8, 3, 3), np.uint8))
    s.conv("x", s.node("Mul", s.node("Cast", codes, to=TensorProto.FLOAT), s.constant(np.float32(0.1))))
    audit = audited(s.model(also_inputs=[input_of(s.stored[0])]))
    assert audit.optimised["Cast"] == 1
    assert "its weight is an input of the graph" in one(audit, "Conv").reason
    assert any("1 initializers are inputs of the graph too" in line for line in audit.summary)


def test_decoding_that_is_not_folded_is_counted():
    s = Sketch()
    s.conv("x", s.node("RandomUniform", shape=[8, 8, 3, 3]))
    assert one(audited(s.model()), "Conv").reason == ""  # no constant at all

    s = Sketch()
    w = s.node("DequantizeLinear", s.narrow(TensorProto.INT4), s.constant(np.float32(0.1)))
    s.conv("x", s.node("Mul", w, s.constant(np.float32(2))))
    audit = audited(s.model(opset=21, ir_version=10))
    assert any("1 Mul on stored tensors: not folded" in line for line in audit.summary)
    assert "its weight is decoded at every inference" in one(audit, "Conv").reason


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda s: s.conv("x", s.weight(scale=CHANNELS, axis=0)) and s.model(opset=12), "opset 13 or newer"),
        (
            lambda s: (
                s.both(
                    s.node(
                        "AveragePool",
                        s.both("x", np.uint8([0]), scale=np.float32([0.1])),
                        kernel_shape=[2, 2],
                    ),
                    np.uint8([0]),
                    scale=np.float32([0.1]),
                )
                and s.model()
            ),
            r"shape \[\], not \[1\]",
        ),
        (
            lambda s: (
                s.both(
                    s.conv(
                        s.both("x"),
                        s.node("DequantizeLinear", s.narrow(TensorProto.INT2), s.constant(np.float32(0.1))),
                    )
                )
                and s.model(opset=25, ir_version=10)
            ),
            "expand the codes to int8",
        ),
        (lambda s: s.node("NoSuchOperator", "x") and s.model(), "does not exist"),
    ],
)
def test_what_does_not_load_is_an_input_error_with_the_way_out(model, message):
    with pytest.raises(InputError, match=f"(?s)model: ONNX Runtime cannot load .*{message}"):
        audited(model(Sketch()))


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(InputError, match="model: is no ONNX model"):
        fusion_audit(b"\x08\x08\xff", name="model")


def test_a_rectifier_that_quantizing_makes_needless_is_removed():
    s = Sketch()
    s.both(s.node("Relu", s.both("x", np.uint8(100))))
    audit = audited(s.model())
    assert "Relu" not in audit.optimised
    assert one(audit, "Relu").runs_as == "removed"
    assert "0 of 1 Relu compute on integers; 1 removed" in audit.summary


def test_dynamic_quantization_is_called_what_it_is():
    s = Sketch()
    codes = s.node("DynamicQuantizeLinear", "x")
    s.nodes[-1].output.extend(["scale", "zero point"])
    weight, step = s.constant(np.ones((8, 4), np.uint8)), s.constant(np.float32(0.1))
    x = s.node("MatMulInteger", codes, weight, "zero point", s.constant(np.uint8(0)))
    s.node("Mul", s.node("Cast", x, to=TensorProto.FLOAT), s.node("Mul", "scale", step))
    audit = audited(s.model(shape=("N", 8)))
    assert audit.summary[0].startswith("dynamically quantized")
    assert one(audit, "MatMulInteger").integer
    assert not any(node.reason for node in audit.nodes)


def test_nodes_that_run_elsewhere_are_followed():
    s = Sketch()
    a, b = s.node("Relu", "x"), s.node("Relu", "x")  # the same twice: one runs
    c = s.conv(
        s.node("Pad", s.node("Concat", a, b, axis=1), s.constant(np.int64([0, 0, 1, 1] * 2))),
        s.floats(8, 16, 3, 3),
    )
    s.node("Gelu", s.node("Add", c, s.floats(8, 1, 1)))
    model = s.model(opset=20, ir_version=9)
    audit = audited(model)
    assert [node.runs_as for node in audit.nodes if node.op == "Relu"] == ["Relu", "Relu"]
    assert one(audit, "Pad").runs_as == one(audit, "Conv").runs_as
    pair = optimised_graph(model.SerializeToString(), name="model")
    live = {pair.optimised.nodes[place].op_type for place in pair.runs.values()}
    assert {node.runs_as.split(".")[-1] for node in audit.nodes} <= live


def test_names_of_the_file_are_kept():
    model = emit(small_model(), flavour="float")
    model.graph.node[0].name = "first"
    audit = audited(model)
    assert audit.nodes[0].node == "first"
    assert audit.nodes[1].node == model.graph.node[1].output[0]
    onnx.checker.check_model(model)
