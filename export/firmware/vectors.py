"""Test vectors: inputs, and what ONNX Runtime's int8 model makes of them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.export.firmware.c_text import array, byte_array, float_text
from modelpress.export.firmware.network import Network
from modelpress.export.firmware.pixels import quantized
from modelpress.export.firmware.scales import VALUE_BITS
from modelpress.export.onnx_flavours import emit
from modelpress.export.post_training.calibration import ActivationRanges
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import open_session, run_feed

_SOFTMAX_TOLERANCE = 2.0**-16


@dataclass(frozen=True, eq=False)
class Vectors:
    """Inputs and outputs.

    Attributes:
        codes: Shape ``(n, inputs)``, uint8.
        values: Shape ``(n, outputs)``, float32.
    """

    codes: npt.NDArray[np.uint8]
    values: npt.NDArray[np.float32]


def make_vectors(
    model: QuantizedModel, network: Network, ranges: ActivationRanges, inputs: npt.NDArray[np.generic]
) -> Vectors:
    """Run ONNX Runtime on inputs, one by one.

    Args:
        model: As generated from.
        network: Made of it.
        ranges: Of its activations.
        inputs: Shape ``(n, ...)``, as the network takes them.

    Raises:
        InputError: They do not fit.
    """
    session = open_session(emit(model, flavour="int8", ranges=ranges).SerializeToString(), threads=1)
    name, ending = session.get_inputs()[0].name, network.ending
    values = []
    for one in np.asarray(inputs, np.float32):
        found = next(iter(run_feed(session, {name: one[None]}).values())).reshape(-1)
        values.append(found.astype(np.float32))
    shape = (len(inputs), network.source.size)
    codes = quantized(np.asarray(inputs, np.float32), network.source).reshape(shape)
    if ending != "ArgMax" and any(len(one) != network.outputs for one in values):
        raise InputError(f"the model gives {len(values[0])} values for one input; expected {network.outputs}")
    return Vectors(codes, np.stack(values))


def vectors_header(vectors: Vectors, network: Network, *, integers: bool) -> str:
    """`test/vectors.h`."""
    if integers:
        numbers = np.rint(vectors.values.astype(np.float64) * 2**VALUE_BITS).astype(np.int64)
        values = map(str, numbers.reshape(-1).tolist())
        tolerance = str(int(_SOFTMAX_TOLERANCE * 2**VALUE_BITS))
    else:
        values = map(float_text, vectors.values.reshape(-1).tolist())
        tolerance = float_text(_SOFTMAX_TOLERANCE)
    lines = [
        "/* Written by modelpress: inputs, and what ONNX Runtime computes of them. */",
        "#ifndef VECTORS_H",
        "#define VECTORS_H",
        "",
        '#include "../model.h"',
        "",
        f"#define TEST_VECTORS {len(vectors.codes)}",
        f"#define TEST_TOLERANCE {tolerance}",
        *(["#define TEST_SOFTMAX 1"] if network.ending == "Softmax" else []),
        "",
        byte_array("test_codes", vectors.codes.tobytes()),
        "",
        array("press_nn_value", "test_values", values),
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)
