"""Every operator in C gives, bit for bit, what ONNX Runtime's int8 model gives."""

import subprocess
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto

from modelpress.export.firmware.generating import generate
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate
from modelpress.export.quantized import QuantizedTensor
from tests.helpers.firmware import SANITIZED, Layers, make

SAME = {"pads": [1, 1, 1, 1]}


def residual(layers):
    """Sums of both orders, strides, a projection, an average over planes."""
    x = layers.conv("x", "a", 8, 3, **SAME)
    t = layers.conv(x, "b", 8, 8, relu=False, **SAME)
    x = layers.add("Relu", [layers.add("Add", [t, x], "s1")], "r1")
    t = layers.conv(x, "c", 12, 8, strides=[2, 2], **SAME)
    t = layers.conv(t, "d", 12, 12, relu=False, **SAME)
    p = layers.conv(x, "p", 12, 8, (1, 1), relu=False, strides=[2, 2])
    x = layers.add("Relu", [layers.add("Add", [p, t], "s2")], "r2")
    x = layers.add("Flatten", [layers.add("GlobalAveragePool", [x], "g")], "f")
    layers.gemm(x, "y", 5, 12)
    return layers.model(3, 11, 10)


def kernels(layers):
    """Groups, dilation, pads that differ, large and flat kernels, scales per channel, a clip."""
    x = layers.conv("x", "a", 10, 4, (5, 3), pads=[2, 0, 1, 2], bias=False)
    x = layers.conv(x, "b", 10, 1, (3, 3), group=10, relu=False, strides=[1, 2], pads=[1, 0, 1, 1])
    layers.tensors["low"], layers.tensors["high"] = np.float32(-0.5), np.float32(1.5)
    x = layers.add("Clip", [x, "low", "high"], "clipped")
    x = layers.conv(x, "c", 6, 5, (2, 2), group=2, dilations=[2, 1], channel_axis=0)
    x = layers.conv(x, "d", 9, 6, (1, 7), pads=[0, 3, 0, 3], strides=[3, 1], auto_pad="NOTSET")
    x = layers.add("Flatten", [x], "f")
    layers.gemm(x, "e", 7, 9 * 4 * 6)
    x = layers.add("Relu", ["e"], "er")
    layers.gemm(x, "y", 6, 7)
    return layers.model(4, 13, 14)


def pools(layers):
    """Pools, concatenation, padding, products, elementwise functions by table."""
    x = layers.conv("x", "a", 6, 3, **SAME)
    m = layers.add("MaxPool", [x], "m", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    v = layers.add("AveragePool", [x], "v", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    i = layers.add("AveragePool", [x], "i", kernel_shape=[2, 2], strides=[2, 2], count_include_pad=1)
    x = layers.add("Concat", [m, v, i], "cat", axis=1)
    h = layers.conv(x, "b", 6, 18, relu=False, **SAME)
    x = layers.add("HardSwish", [h], "hs")
    x = layers.conv(x, "c", 6, 6, (1, 1), relu=False)
    q = layers.add(
        "Sigmoid", [layers.conv(layers.add("GlobalAveragePool", [x], "ga"), "se", 6, 6, (1, 1))], "sg"
    )
    x = layers.add("Mul", [x, q], "scaled")
    layers.tensors["pads"] = np.array([0, 0, 1, 0, 0, 0, 0, 2])
    x = layers.add("Pad", [x, "pads"], "padded")
    x = layers.add("Tanh", [layers.conv(x, "d", 6, 6, relu=False)], "th")
    x = layers.conv(x, "e", 4, 6)
    layers.gemm(layers.add("Flatten", [x], "f"), "y", 4, 4 * 3 * 4)
    return layers.model(3, 12, 12)


def lines(layers):
    """One axis of space."""
    x = layers.conv("x", "a", 6, 2, (5,), pads=[2, 2])
    x = layers.conv(x, "b", 6, 6, (3,), strides=[2])
    x = layers.add("MaxPool", [x], "m", kernel_shape=[2], strides=[2])
    layers.gemm(layers.add("Flatten", [x], "f"), "y", 3, 6 * 7)
    return layers.model(2, 30)


def dense(layers):
    """Matrix products alone, and a sum of two activations that no convolution makes."""
    layers.gemm("x", "a", 30, 40)
    x = layers.add("Relu", ["a"], "ar")
    layers.weight("b.weight", 30, 20)
    layers.tensors["b.bias"] = layers.rng.standard_normal(20).astype(np.float32)
    x = layers.add("Add", [layers.add("MatMul", [x, "b.weight"], "bm"), "b.bias"], "b")
    layers.gemm(layers.add("Relu", [x], "br"), "y", 8, 20)
    return layers.model(40)


NETWORKS = [residual, kernels, pools, lines, dense]


def check_bits(made, *flags, compiler="cc"):
    found = made.run(made.build(*flags, compiler=compiler))
    assert np.ptp(made.vectors.values, axis=0).min() > 0  # every output varies
    np.testing.assert_array_equal(found, made.vectors.values)


@pytest.mark.parametrize("network", NETWORKS)
def test_outputs_are_those_of_onnx_runtime(network, tmp_path):
    check_bits(make(tmp_path / "fw", network(Layers())), *SANITIZED)


@pytest.mark.parametrize("network", [residual, kernels])
def test_eight_bits_and_numbers_of_a_fixed_width(network, tmp_path):
    made = make(tmp_path / "fw", network(Layers(bits=8, sparsity=0.0)), optimise="speed")
    assert {layer.coding for layer in made.firmware.coded.values()} == {"packed"}
    check_bits(made, *SANITIZED)


def test_channel_scales_of_few_bits_make_short_factors(tmp_path):
    layers = Layers()
    model = residual(layers)
    for name, tensor in layers.tensors.items():
        if isinstance(tensor, QuantizedTensor):
            short = layers.rng.uniform(0.5, 1.5, tensor.channels).astype(np.float16).astype(np.float32)
            model.tensors[name] = replace(tensor, channel_scale=short)
    made = make(tmp_path / "fw", model)
    assert made.firmware.source.count(".unit = 0u") == 0
    check_bits(made, *SANITIZED)


def test_every_kernel_compiler_and_multiplication_agrees(tmp_path):
    made = make(tmp_path / "fw", residual(Layers()))
    assert made.firmware.source.count("PRESS_NN_ADDS_BY_VALUE") > 2
    plain = ("-DPRESS_NN_BY_VALUE=0", "-DPRESS_NN_WIDE=0")
    check_bits(made, "-O1", *plain, compiler="gcc")
    check_bits(made, "-O1", plain[0], compiler="gcc")
    check_bits(made, "-O2", "-DPRESS_NN_LANES_64=0", compiler="clang")


@pytest.mark.parametrize("network", [residual, pools])
def test_integers_only_give_the_same_to_their_last_bit(network, tmp_path):
    made = make(tmp_path / "fw", network(Layers()), n=40, arithmetic="integer")
    found = made.run(made.build(*SANITIZED))
    assert np.ptp(made.vectors.values, axis=0).min() > 0
    np.testing.assert_array_equal(found, np.rint(made.vectors.values.astype(np.float64) * 65536) / 65536)


@pytest.mark.parametrize("arithmetic", ["float", "integer"])
def test_softmax_is_near(arithmetic, tmp_path):
    layers = Layers()
    layers.gemm(layers.add("Relu", [layers.gemm("x", "a", 30, 40)], "r"), "b", 6, 30)
    layers.add("Softmax", ["b"], "y", axis=1)
    made = make(tmp_path / "fw", layers.model(40), arithmetic=arithmetic)
    found = made.run(made.build(*SANITIZED))
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-4)
    np.testing.assert_allclose(found, made.vectors.values, atol=2**-16)


def test_argmax_is_the_number_of_the_largest(tmp_path):
    layers = Layers()
    layers.gemm("x", "b", 6, 40)
    layers.add("ArgMax", ["b"], "y", axis=1, keepdims=0)
    model = layers.model(40)
    model.graph.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    made = make(tmp_path / "fw", model)
    found = made.run(made.build(*SANITIZED))
    np.testing.assert_array_equal(found.argmax(1), made.vectors.values.ravel())


def test_bounds_of_whole_bytes_are_compiled_in_where_all_codes_have_them(tmp_path):
    made = make(tmp_path / "fw", residual(Layers()), n=4)
    assert "#define PRESS_NN_WHOLE_BYTES 1" in (made.folder / "press_nn.h").read_text()
    done = subprocess.run(
        ["make", "-s", "-C", made.folder, "CFLAGS=-O1", "test"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.count("ok: ")) == (0, 4), done.stderr
    ranges = dict.fromkeys(activations_to_calibrate(residual(Layers())), (-1.0, 1.0))
    assert not generate(residual(Layers()), ranges).network.has_whole_bytes  # a Relu whose codes begin at 128
