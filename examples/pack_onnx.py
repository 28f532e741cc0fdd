"""Pack an ONNX model into a `.press` file, open it, compare it with the original, and run it. Needs no PyTorch.

    python examples/pack_onnx.py [MODEL.onnx]

Without a model, a small convolutional network with random weights is made.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

import modelpress

SHAPE = (8, 3, 32, 32)  # a batch of images


def small_network() -> onnx.ModelProto:
    """Two convolutions and a linear layer: (N, 3, 32, 32) to (N, 10)."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        return numpy_helper.from_array((scale * rng.standard_normal(shape)).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "conv1.weight"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "conv2.weight"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "fc.weight"], ["logits"], transB=1),
    ]
    weights = [weight("conv1.weight", 16, 3, 3, 3), weight("conv2.weight", 64, 16, 3, 3)]
    weights.append(weight("fc.weight", 10, 64))

    graph = helper.make_graph(
        nodes,
        "small_network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", *SHAPE[1:]])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def random_inputs(model: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Seeded numbers for every input; axes without a length get 8, as a batch does."""
    rng = np.random.default_rng(1)
    return {
        node.name: rng.standard_normal(
            [n if isinstance(n, int) else SHAPE[0] for n in node.shape], np.float32
        )
        for node in modelpress.open_session(model).get_inputs()
    }


def main() -> None:
    """Carry out the steps and print what each comes to."""
    parser = argparse.ArgumentParser(description="Pack an ONNX model, open it, compare it and run it.")
    parser.add_argument("model", type=Path, nargs="?", help="an ONNX model with float32 inputs")
    parser.add_argument("--bits", type=int, default=6, help="width of the codes, 2 to 8 [default: 6]")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = options.model or folder / "small.onnx"
        if options.model is None:
            onnx.save(small_network(), source)

        # pack: every large weight gets codes on a grid, one scale per output channel
        packed = folder / "model.press"
        report = modelpress.pack(source, packed, bits=options.bits)
        print(f"{source.name}: {report.source_bytes:,} bytes; {packed.name}: {report.size_bytes:,} bytes")

        # open: codes, scales and the graph, checked against their checksums
        model = modelpress.read_artifact(packed)
        for tensor, weight in model.quantized().items():
            print(f"{tensor}: shape {weight.shape}, {weight.bits} bits, codes up to {weight.codes.max()}")

        # run: the weights are handed to ONNX Runtime, no ONNX file is written
        inputs = random_inputs(source)
        before = modelpress.open_session(source).run(None, inputs)[0]
        after = modelpress.open_session(packed).run(None, inputs)[0]
        print(f"outputs differ by {np.abs(after - before).max():.2g} at most, of {np.abs(before).max():.2g}")

        # an ONNX file from the artifact, for runtimes elsewhere: the same weights bit for bit
        modelpress.write_onnx(folder / "again.onnx", model)
        again = modelpress.open_session(folder / "again.onnx").run(None, inputs)[0]
        print(f"again.onnx: {'the same outputs' if np.allclose(again, after) else 'other outputs'}")


if __name__ == "__main__":
    main()
