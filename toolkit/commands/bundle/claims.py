"""What a bundle says of its model: input and output, and everything measured; see `bundle_manifest`."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from modelpress.benchmarks.environment import busy_note
from modelpress.benchmarks.measures.accuracy import classify, top1, wilson_interval
from modelpress.benchmarks.measures.latency import Contestant, Loading, latency_records, measure_latency
from modelpress.benchmarks.measures.trial import run_once
from modelpress.benchmarks.subjects.feeding import Feed, InputPlan, batch_of, plan_inputs
from modelpress.benchmarks.subjects.given import NOTHING
from modelpress.benchmarks.subjects.inputs import input_specs
from modelpress.export.errors import InputError
from modelpress.export.handoff.bundle_files import verify
from modelpress.export.handoff.manifest import (
    AccuracyClaim,
    Compression,
    Contract,
    LatencyClaim,
    Normalisation,
    Sample,
    SampleClaim,
)
from modelpress.export.post_training.calibration import INPUT_METADATA, pixel_normalisation
from modelpress.export.quantized import QuantizedModel, QuantizedTensor
from modelpress.export.runtime import single_input
from modelpress.toolkit.data.data_set import DataSet, Split
from modelpress.toolkit.data.measured_set import SPLITS_METADATA
from modelpress.toolkit.data.names import TaskKind
from modelpress.toolkit.data.network_input import VALUES_METADATA, network_inputs
from modelpress.toolkit.data.png_file import encode_png
from modelpress.toolkit.progress import Progress

ROUNDS = 3  # of the latency
_SAMPLE_SEED = 0
_SCALE = 1 / 255
_VALUES = "(value - mean) / std, along the second axis"
_OUTPUTS: dict[TaskKind, str] = {
    "multi-label": "logits, one per label; above 0 the label is there",
    "regression": "numbers, as the targets are",
    "sequence": "logits, one per class at every place",
}

Logits = npt.NDArray[np.float32]


def contract_of(
    session: ort.InferenceSession, metadata: dict[str, str], images: DataSet | None, progress: Progress
) -> Contract | None:
    """What a classifier takes and gives; what it does not say itself is taken from the data set it is measured on.

    Returns:
        None for models that are no classifiers, where there is no data set to measure them on.

    Raises:
        InputError: It does not take one batch of arrays of a fixed size, or gives no table of logits where its task is
            classification, though there is a data set; or its metadata are not as they should be.
    """
    if images is None and not _is_classifier(session):
        return None
    task = _task_of(metadata, images)
    node, outputs = single_input(session), session.get_outputs()
    taken, given = verify.shape_of(node), verify.shape_of(outputs[0])
    if len(outputs) != 1 or not given or (task == "classification" and len(given) != 2):
        raise InputError(f"model output has shape {given}; expected one table of logits (N, classes)")
    if not all(isinstance(size, int) for size in given[1:]):
        raise InputError(
            f"model output has shape {given}; a bundle takes outputs whose axes but the batch are fixed"
        )
    fixed = len(taken) > 1 and all(isinstance(size, int) and size > 0 for size in taken[1:])
    if node.type not in verify.TYPES.values() or not fixed or taken[0] not in ("N", 1):
        raise InputError(
            f"model input is {node.type} of shape {taken}; a bundle takes float32 or int64, batches of any size or "
            "of 1, all other axes fixed"
        )

    rule, labels, layout = _input_rule(metadata)
    if rule is None and images is not None and images.mean:
        progress.note(f"the model does not say how images become input: taken from {images.name}")
        rule = Normalisation(
            scale=_SCALE if images.of_images else 1.0, mean=list(images.mean), std=list(images.std)
        )
        layout = "NCHW, RGB, (pixel / 255 - mean) / std" if images.of_images else _VALUES

    n_outputs = given[-1] if len(given) > 1 else 1
    if images is not None and images.class_names and len(images.class_names) != n_outputs:
        raise InputError(
            f"model has {n_outputs} outputs; {images.name} has {len(images.class_names)} classes"
        )
    if not labels and images is not None:
        labels = list(images.class_names)
    if labels and len(labels) != n_outputs:
        raise InputError(f"model has {n_outputs} outputs for {len(labels)} classes: {', '.join(labels)}")
    return Contract(
        input_name=node.name,
        input_shape=taken,
        layout=layout,
        normalisation=rule,
        output_name=outputs[0].name,
        output_shape=given,
        input_dtype="int64" if node.type == verify.TYPES["int64"] else "float32",
        labels=labels,
        task=task,
        **({} if task == "classification" else {"output": _OUTPUTS[task]}),
    )


def _task_of(metadata: dict[str, str], data: DataSet | None) -> TaskKind:
    """What the user says, else the model, else one class for each example."""
    if data is not None:
        return data.task.kind
    try:
        told = json.loads(metadata.get(SPLITS_METADATA, "{}")).get("task", "classification")
    except (ValueError, AttributeError, RecursionError):
        return "classification"
    return told if told in get_args(TaskKind) else "classification"


def _is_classifier(session: ort.InferenceSession) -> bool:
    """One batch of float32 arrays of a fixed size in, a table of at least one column out."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type != "tensor(float)":
        return False
    taken, given = verify.shape_of(inputs[0]), verify.shape_of(outputs[0])
    fixed = len(taken) > 1 and all(isinstance(size, int) and size > 0 for size in taken[1:])
    table = len(given) == 2 and isinstance(given[1], int) and outputs[0].type == "tensor(float)"
    return fixed and taken[0] in ("N", 1) and table


def _input_rule(metadata: dict[str, str]) -> tuple[Normalisation | None, list[str], str]:
    """Normalisation, labels and layout as a model's metadata give them; None and nothing where they do not.

    Raises:
        InputError: They are there in another form.
    """
    stated = pixel_normalisation(metadata)
    try:
        labels = [str(label) for label in json.loads(metadata.get("modelpress.classes", "[]"))]
        if stated is None and VALUES_METADATA in metadata:
            values = json.loads(metadata[VALUES_METADATA])
            return Normalisation(scale=1.0, mean=values["mean"], std=values["std"]), labels, values["layout"]
        if stated is None:
            return None, labels, ""
        layout = str(json.loads(metadata[INPUT_METADATA])["layout"])
        return Normalisation(scale=_SCALE, mean=stated[0], std=stated[1]), labels, layout
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"the model's metadata on its input are not as modelpress writes them: {error}"
        ) from error


def logits_of(session: ort.InferenceSession, metadata: dict[str, str], images: DataSet) -> Logits:
    """Outputs for all test images."""
    return classify(session, network_inputs(images.test, images, metadata))


def accuracy_claim(logits: Logits, images: DataSet) -> AccuracyClaim:
    """Top-1 of outputs for all test images."""
    labels = images.test.labels
    fraction = top1(logits, labels)
    return AccuracyClaim(
        top1=fraction,
        n_images=len(labels),
        interval=wilson_interval(fraction, len(labels)),
        dataset=images.name,
        fingerprint=images.fingerprint(),
    )


def choose_samples(logits: Logits, labels: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """Indices of `n` images classified right, as equal in number per class as can be, by class.

    Example:
        >>> choose_samples(np.eye(3, dtype=np.float32)[[0, 1, 1, 2, 0]], np.array([0, 1, 0, 2, 1]), 3).tolist()
        [0, 1, 3]
    """
    right = np.flatnonzero(logits.argmax(axis=1) == labels)
    shuffled = right[np.random.default_rng(_SAMPLE_SEED).permutation(len(right))]
    turn = np.empty(len(shuffled), np.int64)  # the how-manieth of its class

    for label in np.unique(labels):
        members = labels[shuffled] == label
        turn[members] = np.arange(np.count_nonzero(members))

    chosen = shuffled[np.lexsort((labels[shuffled], turn))][:n]
    return chosen[np.lexsort((chosen, labels[chosen]))]


def write_samples(
    folder: Path, contract: Contract, test: Split, logits: Logits, chosen: npt.NDArray[np.int64]
) -> SampleClaim | None:
    """Test images as PNG files."""
    if not len(chosen):
        return None
    (folder / "samples").mkdir(exist_ok=True)
    images = []

    for number, index in enumerate(chosen):
        label = int(test.labels[index])
        named = contract.labels[label] if contract.labels else str(label)
        words = re.sub(r"[^a-z0-9]+", "-", named.lower()).strip("-")
        file = f"samples/{number:0{len(str(len(chosen) - 1))}d}-{words or label}.png"
        (folder / file).write_bytes(encode_png(test.images[index]))
        probability = float(verify.softmax(logits[index])[label])
        images.append(Sample(file=file, label=label, predicted=label, probability=probability))

    return SampleClaim(
        agreement=1.0,
        chosen=f"{len(images)} test images that the model classifies right, to check an installation; "
        "no estimate of its accuracy",
        images=images,
    )


def latency_claim(
    path: Path,
    session: ort.InferenceSession,
    feeds: list[Feed] | None,
    environment: dict[str, Any],
    progress: Progress,
) -> LatencyClaim:
    """Time an ONNX file in one thread; a session of it runs once before.

    Args:
        path: Of the file.
        session: Of it.
        feeds: One call; None for random images, one at a time.
        environment: Machine and versions.
        progress: Told how far the work is.

    Raises:
        ModelpressError: It cannot be timed.
    """
    specs = input_specs(onnx.load_from_string(path.read_bytes()))
    plan = (
        plan_inputs(path.name, specs, NOTHING, (1,))
        if feeds is None
        else InputPlan({batch_of(specs, feeds): feeds})
    )
    run_once(session, plan)
    progress.start("latency", ROUNDS)
    try:
        (turns,) = measure_latency(
            [Contestant(path, plan)],
            threads=(1,),
            rounds=ROUNDS,
            on_round=lambda path: progress.advance(path.name),
        )
    finally:
        progress.finish()

    (record,) = latency_records(turns)
    runtime = environment["versions"].get("onnxruntime", "")
    return LatencyClaim(
        batch=min(plan.feeds),
        threads=1,
        p50_ms=record.p50_ms,
        p90_ms=record.p90_ms,
        samples=record.samples,
        machine=f"{environment['cpu']}, {environment['cores']} cores, {environment['system']}, "
        f"onnxruntime {runtime}",
        busy=busy_note(environment),
        peak_memory_bytes=Loading.of(turns).peak_memory_bytes,
    )


def compression_of(model: QuantizedModel) -> Compression:
    """Zeros and code widths over all quantized weights."""
    tensors = [tensor for tensor in model.tensors.values() if isinstance(tensor, QuantizedTensor)]
    bits: dict[int, int] = {}
    for tensor in tensors:
        bits[tensor.bits] = bits.get(tensor.bits, 0) + tensor.codes.size
    weights = sum(bits.values())
    nonzero = sum(int(np.count_nonzero(tensor.nonzero)) for tensor in tensors)
    return Compression(weights=weights, zeros=weights - nonzero, bits=dict(sorted(bits.items())))
