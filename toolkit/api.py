"""What commands and users both call: functions that take paths and models, and return what they found.

`import modelpress` gives these names; importing this module loads no torch.

Example:
    >>> import tempfile
    >>> from onnx import parser, save
    >>> folder = tempfile.TemporaryDirectory()
    >>> source, packed = Path(folder.name, "model.onnx"), Path(folder.name, "model.press")
    >>> save(parser.parse_model('''
    ...     <ir_version: 8, opset_import: ["": 17]>
    ...     double (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {2, 0, 0, 2}> { y = MatMul(x, w) }
    ... '''), source)
    >>> pack(source, packed, bits=4, min_elements=1).quantized_tensors
    1
    >>> session = open_session(packed)
    >>> run_batched(session, np.array([[1, 3]], np.float32))
    array([[2., 6.]], dtype=float32)
    >>> folder.cleanup()
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpress.benchmarks.records import Results
from modelpress.benchmarks.subjects.given import Given, read_given
from modelpress.export.choices import CALIBRATION_METHOD, DEFAULT_TIMEOUT_S, Effort
from modelpress.export.errors import InputError
from modelpress.export.files.kinds import Wanted, check_kind
from modelpress.export.isolation.foreign import foreign_work
from modelpress.export.onnx_flavours import prepare, write_emission
from modelpress.export.post_training.calibration import CalibrationOptions
from modelpress.export.post_training.packing import WeightOptions
from modelpress.export.post_training.rounding import PostTraining
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import run_batched
from modelpress.export.sessions import open_session
from modelpress.toolkit.data.measured_set import MeasuredSet
from modelpress.toolkit.model_files.inspecting import inspection
from modelpress.toolkit.model_files.measuring import BenchPlan, bench_files
from modelpress.toolkit.model_files.onnx_writing import FlavourRequest, calibrated_ranges, write_flavour
from modelpress.toolkit.model_files.packing import PackReport, pack_onnx
from modelpress.toolkit.model_files.unpacking import unpack_file
from modelpress.toolkit.model_files.verifying import verification
from modelpress.toolkit.progress import Progress, Silent

__all__ = ["bench", "inspect", "open_session", "pack", "run_batched", "unpack", "verify", "write_onnx"]

File = str | Path


def pack(
    source: File,
    output: File,
    *,
    bits: int = PostTraining.bits,
    symmetric: bool | None = PostTraining.symmetric,
    sparsity: float = PostTraining.sparsity,
    per_channel: bool = WeightOptions.per_channel,
    min_elements: int = WeightOptions.min_elements,
    lossless: bool = WeightOptions.lossless,
    effort: Effort = "default",
    allow_external_data: bool = False,
    progress: Progress | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> PackReport:
    """Pack an ONNX model from anywhere: its weights are quantized, all else is stored as it is.

    Args:
        source: The ONNX file.
        output: The artifact to write, whole or not at all; a file that is there is replaced.
        bits: Code width of the weights, 2 to 8.
        symmetric: Grid around zero, or from minimum to maximum; None: around zero in 8 bits, which `int8` takes as
            it is.
        sparsity: Fraction of each weight tensor set to zero first, 0 to 1.
        per_channel: One scale per output channel, or per tensor.
        min_elements: Tensors with fewer elements stay as they are.
        lossless: Quantize nothing; the options above have no effect, every tensor comes back byte for byte.
        effort: ``fast``, ``default`` or ``max``: how hard to look for the smallest file.
        allow_external_data: Follow tensors into other files of the model's folder.
        progress: Told how far the work is.
        timeout_s: Seconds for each check or run of the model, in a process of its own.

    Raises:
        InputError: A file cannot be read or written, or is of another kind.
        ModelError: The model holds something that cannot be packed, or an option is out of range.

    Example:
        >>> pack("missing.onnx", "model.press")
        Traceback (most recent call last):
        modelpress.export.errors.InputError: missing.onnx: cannot be read: No such file or directory
    """
    path = Path(source)
    check_kind(path, Wanted.PACKABLE)
    options = WeightOptions(
        lossless=lossless,
        quantization=PostTraining(bits=bits, symmetric=symmetric, sparsity=sparsity),
        per_channel=per_channel,
        min_elements=min_elements,
    )
    with foreign_work(timeout_s):
        return pack_onnx(
            path,
            Path(output),
            options,
            allow_external_data=allow_external_data,
            effort=effort,
            progress=progress or Silent(),
        )


def write_onnx(
    output: File,
    model: QuantizedModel,
    *,
    flavour: str = "float",
    calibration: File | npt.NDArray[np.float32] | None = None,
) -> int:
    """Write a checked ONNX model of a decoded artifact, whole or not at all; returns its size in bytes.

    Args:
        output: The file to write; a file that is there is replaced.
        model: As `read_artifact` returns it.
        flavour: ``float``, ``weight-only`` or ``sparse``; or ``int8`` or ``int8-sparse``, which compute in integers.
        calibration: For the integer flavours, inputs to measure the ranges of activations on: an array as the network
            takes it, an ``.npy`` file, or the folder of a data set.

    Raises:
        InputError: Calibration data are missing or do not fit, or the file cannot be written.
        ModelError: The flavour cannot be made of this model.

    Example:
        >>> import onnx
        >>> write_onnx("m.pdf", QuantizedModel(onnx.ModelProto()))
        Traceback (most recent call last):
        modelpress.export.errors.CommandLineError: m.pdf: this will be an ONNX model; expected a name that ends in .onnx
    """
    path = Path(output)
    if isinstance(calibration, np.ndarray):
        FlavourRequest(flavour, data=path)  # refuses flavours without calibration
        ranges = calibrated_ranges(model, calibration, CalibrationOptions(method=CALIBRATION_METHOD))
        return write_emission(path, prepare(model, flavour=flavour, ranges=ranges))

    data = None if calibration is None else Path(calibration)
    facts = write_flavour(path, model, FlavourRequest(flavour, data=data))
    return int(facts["size_bytes"])


def bench(
    *files: File,
    dataset: str | None = None,
    data_dir: File | None = None,
    batches: Sequence[int] = BenchPlan.batches,
    threads: Sequence[int] = BenchPlan.threads,
    rounds: int = BenchPlan.rounds,
    inputs: Mapping[str, File] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Results:
    """Measure ``.press`` and ``.onnx`` files against the first of them: size, sparsity, accuracy, latency.

    Each file is timed in processes of its own, in turns; leave the machine alone meanwhile.

    Args:
        files: At least one; the first is the baseline.
        dataset: ``digits`` or ``cifar10``; None: what the first file was trained on.
        data_dir: Folder of CIFAR-10.
        batches: Batch sizes of the latency.
        threads: Thread counts of the latency.
        rounds: How often the files take turns; a verdict needs three.
        inputs: ``.npy`` files by input name; inputs that are not given are made up.
        shapes: Of inputs that are made up.
        progress: Told how far the work is.
        timeout_s: Seconds for each check or run of the model, in a process of its own.

    Raises:
        InputError: A file is no model, the data set is missing or does not fit, or inputs must be given.
        ModelpressError: A file cannot be timed.

    Example:
        >>> bench()
        Traceback (most recent call last):
        modelpress.export.errors.InputError: no files to measure; give at least one
    """
    if not files:
        raise InputError("no files to measure; give at least one")
    plan = BenchPlan(
        data=MeasuredSet(dataset, None if data_dir is None else str(data_dir)),
        batches=tuple(batches),
        threads=tuple(threads),
        rounds=rounds,
        inputs=_given(inputs, shapes),
        bounded=tuple(batches) == BenchPlan.batches,
    )
    with foreign_work(timeout_s):
        return bench_files([Path(file) for file in files], plan, progress or Silent())


def _given(inputs: Mapping[str, File] | None, shapes: Mapping[str, Sequence[int]] | None) -> Given:
    return read_given(
        {name: Path(file) for name, file in (inputs or {}).items()},
        shapes={name: tuple(shape) for name, shape in (shapes or {}).items()},
    )


def inspect(file: File) -> dict[str, Any]:
    """Everything an artifact says about itself, as `modelpress inspect --json` prints it.

    Raises:
        InputError: It cannot be opened.
        ArtifactError: It cannot be trusted.

    Example:
        >>> inspect("/")
        Traceback (most recent call last):
        modelpress.export.errors.InputError: /: is a folder, expected a .press artifact
    """
    return inspection(Path(file))


def verify(
    file: File,
    *,
    against: File | None = None,
    exact: bool = False,
    allow_external_data: bool = False,
    inputs: Mapping[str, File] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> dict[str, str]:
    """Check an artifact in every way that is known here; what each step found, by its name, or why it was not checked.

    Args:
        file: The artifact.
        against: A model whose weights are compared with the decoded ones. Quantized tensors may differ from it, which
            is told, with how much; all others must be equal bit for bit.
        exact: Quantized tensors must be equal as well.
        allow_external_data: Follow tensors of `against` into other files of its folder.
        inputs: As for `bench`.
        shapes: As for `bench`.
        timeout_s: Seconds for each check or run of the model, in a process of its own.

    Raises:
        InputError: A file cannot be opened.
        ArtifactError: A checksum or the content is wrong.
        ModelError: The decoded model is not valid, or differs from `against` where it must not.

    Example:
        >>> verify("/")
        Traceback (most recent call last):
        modelpress.export.errors.InputError: /: is a folder, expected a .press artifact
    """
    given = _given(inputs, shapes)
    with foreign_work(timeout_s):
        found = verification(
            Path(file),
            against=None if against is None else Path(against),
            exact=exact,
            allow_external_data=allow_external_data,
            given=given,
        )
    return {step.check: step.detail if step.holds else f"not checked: {step.detail}" for step in found}


def unpack(file: File, output: File) -> int:
    """Decode an artifact into ``.onnx`` or ``.npz``, as the name says; returns the size of the new file in bytes.

    Raises:
        InputError: A file cannot be read or written, or the name ends otherwise.
        ArtifactError: The artifact cannot be trusted.

    Example:
        >>> unpack("/", "model.npz")
        Traceback (most recent call last):
        modelpress.export.errors.InputError: /: is a folder, expected a .press artifact
    """
    return unpack_file(Path(file), Path(output))
