"""What a bundle holds for those who port: reference tensors, snippets, and what a reduced runtime needs."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from modelpress.benchmarks.measures.trial import arrays_of, calls_that_run
from modelpress.benchmarks.subjects.feeding import Feed
from modelpress.benchmarks.subjects.given import Array, Given
from modelpress.benchmarks.subjects.inputs import check_names, input_specs
from modelpress.export.errors import InputError, ModelpressError
from modelpress.export.graphs.parts import graphs_of
from modelpress.export.handoff import bundle_files
from modelpress.export.handoff.manifest import Contract, ReferenceClaim
from modelpress.export.onnx_flavours import FLAVOURS
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import SessionSettings, open_decoded, open_session
from modelpress.toolkit.commands.bundle.references import reference_claim
from modelpress.toolkit.data.data_set import DataSet, normalised
from modelpress.toolkit.progress import Progress

SNIPPETS = {f"port/check.{ending}": f"port_check.{ending}" for ending in ("py", "cpp", "mjs")}
OPERATORS = "operators.config"
_CALLS = 2  # of a model whose inputs are made up, or images


@dataclass(frozen=True)
class Calls:
    """What the references are computed of.

    Attributes:
        values: Inputs of each call.
        source: Where they come from, in words.
        feeds: The first call, as it is timed; None where none runs.
    """

    values: list[dict[str, Array]]
    source: str
    feeds: list[Feed] | None = None


def reference_calls(model: bytes, session: ort.InferenceSession, given: Given, progress: Progress) -> Calls:
    """Calls as the user gives them, or made up.

    Raises:
        InputError: What is given does not fit.
    """
    try:
        specs = input_specs(onnx.load_from_string(model))
    except InputError as error:
        progress.note(f"the model cannot be fed: {error}")
        return Calls([], "")

    check_names(given.names, [specs])
    try:
        calls = calls_that_run(session, "model.onnx", specs, given, n_made=_CALLS)
    except InputError as error:
        if given.names:
            raise
        progress.note(f"there is no reference and no latency, the model was not run: {error}")
        return Calls([], "")

    whose = "given" if given.calls else "made up from the declared types and shapes, seeded"
    return Calls([arrays_of(call) for call in calls], whose, calls[0])


def images_as_calls(contract: Contract, images: DataSet, chosen: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The first samples, as the model takes them, in the place of other calls."""
    rule = contract.normalisation
    assert rule is not None  # with a data set at hand there is one
    pixels = normalised(images.test.images[chosen[:_CALLS]], tuple(rule.mean), tuple(rule.std))
    values = [{contract.input_name: pixels[k : k + 1]} for k in range(len(pixels))]
    return {"values": values, "source": f"the first samples, test images of {images.name}, normalised"}


def reference_of(
    folder: Path,
    model: QuantizedModel,
    session: ort.InferenceSession,
    flavour: str,
    calls: Calls,
    progress: Progress,
) -> ReferenceClaim | None:
    """Reference tensors of `model.onnx`, and of the float network where that computes in integers."""
    if not calls.values:
        return None
    in_float = open_decoded(model) if FLAVOURS[flavour].integer is not None else None
    try:
        return reference_claim(folder, session, in_float, calls.values, source=calls.source)
    except InputError as error:
        progress.note(f"there is no reference: {error}")
        return None


def write_snippets(folder: Path) -> None:
    """Programs that check a port against the references."""
    (folder / "port").mkdir()
    for name, ours in SNIPPETS.items():
        shutil.copyfile(Path(bundle_files.__path__[0], ours), folder / name)


def write_operators(folder: Path, model: bytes) -> None:
    """The operators of a model, before and after optimisation, as the configuration of a reduced ONNX Runtime.

    Source: ONNX Runtime's documentation of reduced operator configuration files: ``domain;opset;operator,...``.
    """
    graphs = [onnx.load_from_string(model)]
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary, "optimised.onnx")
        try:
            open_session(model, settings=SessionSettings(save_as=str(target)))
            graphs.append(onnx.load(target, load_external_data=False))
        except (ModelpressError, OSError):
            pass  # what the runtime does not write out, the file's own operators stand for

    lines = [
        f"{domain or 'ai.onnx'};{version};{','.join(sorted(operators))}"
        for (domain, version), operators in sorted(_operators(graphs).items())
    ]
    head = f"# operators of model.onnx, and of what ONNX Runtime {ort.__version__} makes of it\n"
    (folder / OPERATORS).write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


def _operators(models: list[onnx.ModelProto]) -> Mapping[tuple[str, int], set[str]]:
    found: dict[tuple[str, int], set[str]] = {}
    for model in models:
        versions = {
            "" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in model.opset_import
        }
        own = {(function.domain, function.name) for function in model.functions}
        nodes = [node for _, graph in graphs_of(model) for node in graph.node]
        nodes += [node for function in model.functions for node in function.node]
        for node in nodes:
            domain = "" if node.domain == "ai.onnx" else node.domain
            if (node.domain, node.op_type) not in own:
                found.setdefault((domain, versions.get(domain, 1)), set()).add(node.op_type)
    return found
