"""Firmware of small networks: generated, compiled for this machine, run, and held against ONNX Runtime."""

import atexit
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from onnx import helper

from modelpress.export.choices import Arithmetic, Optimise
from modelpress.export.firmware.folder import files_of, fixed_files, settings_of, write_folder
from modelpress.export.firmware.generating import Firmware, FirmwareOptions, generate
from modelpress.export.firmware.vectors import Vectors, make_vectors
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate
from modelpress.export.post_training.calibration import calibrate
from modelpress.export.post_training.rounding import PostTraining, quantize_weight
from tests.helpers.c_compilers import STRICT, Target
from tests.helpers.int8_chain import chain, images_for

NODE = helper.make_node
SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
OPERATORS = ("press_nn.c", "press_nn_conv.c", "press_nn_exact.c", "press.c")


@dataclass
class Made:
    """Firmware in a folder, and what ONNX Runtime makes of the inputs of its test vectors."""

    firmware: Firmware
    vectors: Vectors
    folder: Path

    def build(self, *flags, compiler="cc", main=None):
        """The host test, or another program, compiled; skips the test where the compiler is missing."""
        program = self.folder / "program"
        fixed = _objects(compiler, flags, settings_of(self.firmware))
        parts = [self.folder / "test" / "host_test.c", self.folder / "model.c"] if main is None else [main]
        compile_c(compiler, "-I", self.folder, *flags, "-o", program, *parts, *fixed)
        return program

    def run(self, program):
        """The values of every test vector."""
        codes = self.folder / "codes"
        codes.write_bytes(self.vectors.codes.tobytes())
        done = subprocess.run([program, codes], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        kind = np.int32 if self.firmware.is_integer else np.float32
        values = np.frombuffer(done.stdout, kind).reshape(len(self.vectors.codes), -1)
        return values / 65536 if self.firmware.is_integer else values


def compile_c(compiler, *arguments):
    command = [*Target(compiler).command(), *STRICT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@cache
def _objects(compiler, flags, settings):
    """What is the same for every network, compiled once for all tests of this process."""
    folder = Path(mkdtemp(prefix="firmware-"))
    atexit.register(shutil.rmtree, folder)
    write_folder(folder / "c", fixed_files(settings))
    for name in OPERATORS:
        compile_c(compiler, *flags, "-c", folder / "c" / name, "-o", folder / f"{name}.o")
    return [folder / f"{name}.o" for name in OPERATORS]


def make(folder, model, *, n=12, optimise="size", arithmetic="float"):
    """Generate, and write the folder with test vectors of random inputs."""
    inputs = images_for(model)
    ranges = calibrate(model, activations_to_calibrate(model), inputs)
    options = FirmwareOptions(optimise=Optimise(optimise), arithmetic=Arithmetic(arithmetic))
    firmware = generate(model, ranges, options)
    vectors = make_vectors(model, firmware.network, ranges, inputs[:n])
    write_folder(folder, files_of(firmware, vectors))
    return Made(firmware, vectors, folder)


class Layers:
    """Random weights, pruned and quantized, for the nodes of a chain."""

    def __init__(self, *, bits=4, sparsity=0.5, seed=0):
        self.rng = np.random.default_rng(seed)
        self.options = PostTraining(bits=bits, sparsity=sparsity)
        self.nodes, self.tensors = [], {}

    def weight(self, name, *shape, channel_axis=None):
        values = self.rng.standard_normal(shape) * np.sqrt(4 / np.prod(shape[1:]))
        self.tensors[name] = quantize_weight(
            values.astype(np.float32), self.options, channel_axis=channel_axis
        )

    def add(self, operator, inputs, output, **attributes):
        self.nodes.append(NODE(operator, inputs, [output], **attributes))
        return output

    def conv(
        self, x, y, out, inputs, kernel=(3, 3), *, bias=True, relu=True, channel_axis=None, **attributes
    ):
        self.weight(f"{y}.weight", out, inputs, *kernel, channel_axis=channel_axis)
        names = [x, f"{y}.weight"]
        if bias:
            self.tensors[f"{y}.bias"] = (self.rng.standard_normal(out) * 0.3).astype(np.float32)
            names.append(f"{y}.bias")
        self.add("Conv", names, f"{y}.sum" if relu else y, **attributes)
        return self.add("Relu", [f"{y}.sum"], y) if relu else y

    def gemm(self, x, y, out, inputs):
        self.weight(f"{y}.weight", out, inputs)
        self.tensors[f"{y}.bias"] = self.rng.standard_normal(out).astype(np.float32)
        return self.add("Gemm", [x, f"{y}.weight", f"{y}.bias"], y, transB=1)

    def model(self, *shape):
        return _with(chain(self.nodes, _dense(self.tensors), shape, opset=17), self.tensors)


def _dense(tensors):
    return {name: getattr(t, "dequantize", lambda t=t: t)() for name, t in tensors.items()}


def _with(model, tensors):
    model.tensors.update(tensors)
    return model
