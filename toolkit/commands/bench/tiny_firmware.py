"""Firmware of the tiny benchmark's networks, measured: random weights, random inputs."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from modelpress.benchmarks.measures.firmware import FirmwareFolder, measure_firmware
from modelpress.benchmarks.subjects.tiny_networks import TINY_NETWORKS
from modelpress.export.firmware.folder import files_of, write_folder
from modelpress.export.firmware.generating import generate
from modelpress.export.firmware.vectors import make_vectors
from modelpress.export.onnx_flavours.int8 import activations_to_calibrate
from modelpress.export.post_training.calibration import calibrate
from modelpress.export.post_training.rounding import PostTraining
from modelpress.toolkit.progress import Progress

BITS, SPARSITIES = (8, 4), (0.0, 0.7)
_INPUTS, _COMPARED, _IN_EMULATOR = 64, 32, 2


def measure_tiny(progress: Progress) -> dict[str, Any]:
    """Every network in 8 and 4 bits, dense and with 70 % zeros, by a name that says so."""
    found = {}
    for name in TINY_NETWORKS:
        for bits in BITS:
            for sparsity in SPARSITIES:
                label = f"{name}, {bits} bits, {sparsity:.0%} zeros"
                progress.stage(label)
                found[label] = _measured(name, bits, sparsity)
    return found


def _measured(name: str, bits: int, sparsity: float) -> dict[str, Any]:
    model = TINY_NETWORKS[name](PostTraining(bits=bits, symmetric=False, sparsity=sparsity))
    shape = [axis.dim_value for axis in model.graph.graph.input[0].type.tensor_type.shape.dim][1:]
    inputs = np.random.default_rng(1).standard_normal((_INPUTS, *shape)).astype(np.float32)
    ranges = calibrate(model, activations_to_calibrate(model), inputs)
    firmware = generate(model, ranges)
    vectors = make_vectors(model, firmware.network, ranges, inputs[:_COMPARED])
    few = type(vectors)(vectors.codes[:_IN_EMULATOR], vectors.values[:_IN_EMULATOR])

    with tempfile.TemporaryDirectory() as temporary:
        folder, build = Path(temporary, "firmware"), Path(temporary, "build")
        write_folder(folder, files_of(firmware, few))
        build.mkdir()
        facts = measure_firmware(folder)
        values = FirmwareFolder(folder, build).values(vectors.codes)
    return {
        **facts,
        "compared": len(values),
        "equal_bits": int((values == vectors.values).all(axis=1).sum()),
        "varying_outputs": int((np.ptp(vectors.values, axis=0) > 0).sum()),
    }
