"""One ONNX model per way of storing the weights in it; each flavour is a function and a line here.

A flavour turns a model (a graph without weights, and the weights) into another such model, whose tensors are
plain arrays. Writing it down is the same for all.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import onnx

from modelpress.export.errors import InputError
from modelpress.export.exits.declaring import without_exits
from modelpress.export.files.atomic import atomic_writer
from modelpress.export.graphs.check import check_graph
from modelpress.export.graphs.entering.exporter_notes import drop_exporter_notes
from modelpress.export.graphs.entering.opset import in_opset
from modelpress.export.graphs.initializers import with_initializers
from modelpress.export.graphs.parts import opset_of
from modelpress.export.graphs.stream import fits_one_file, write_onnx_stream, write_onnx_with_data
from modelpress.export.onnx_flavours.constant_nodes import MIN_OPSET
from modelpress.export.onnx_flavours.emission import Emission
from modelpress.export.onnx_flavours.int8_storage import int8_dense, int8_sparse
from modelpress.export.onnx_flavours.weight_only import self_expanding_sparse, weight_only
from modelpress.export.post_training.calibration import ActivationRanges
from modelpress.export.quantized import QuantizedModel, dense_array

FLAVOUR_METADATA = "modelpress.flavour"  # not in flavour float


@dataclass(frozen=True)
class Flavour:
    """How a flavour is made.

    Attributes:
        about: What it is, in a few words.
        weights: Makes the model; None keeps it as it is, so that its weights are written decoded.
        integer: Makes the model from the ranges of its activations too, for integer arithmetic.
    """

    about: str
    weights: Callable[[QuantizedModel], Emission] | None = None
    integer: Callable[[QuantizedModel, ActivationRanges, bool, Collection[str]], Emission] | None = None


FLAVOURS: Mapping[str, Flavour] = MappingProxyType(
    {
        "float": Flavour("decoded weights; the reference"),
        "weight-only": Flavour("packed codes, expanded to float at load", weights=weight_only),
        "sparse": Flavour("bitmap and packed nonzero codes, expanded at load", weights=self_expanding_sparse),
        "int8": Flavour("integer arithmetic", integer=int8_dense),
        "int8-sparse": Flavour("integer arithmetic, weights stored as in sparse", integer=int8_sparse),
    }
)


def check_flavour(name: str) -> Flavour:
    """One of `FLAVOURS`.

    Raises:
        InputError: There is none of this name.
    """
    if name not in FLAVOURS:
        raise InputError(f"flavour {name!r} is unknown; choose one of: {', '.join(FLAVOURS)}")
    return FLAVOURS[name]


def prepare(
    model: QuantizedModel,
    *,
    flavour: str,
    ranges: ActivationRanges | None = None,
    reduce_range: bool = False,
    exclude: Collection[str] = (),
) -> Emission:
    """The model of a flavour, graph and tensors apart, and what there is to say about it.

    Early exits that the model hides are left out with their heads; see `modelpress.export.onnx_flavours.leaving_early`.

    Args:
        model: What is to run.
        flavour: A key of `FLAVOURS`.
        ranges: Of the activations, see `modelpress.export.post_training.calibration`; for the integer flavours.
        reduce_range: Integer weights of 7 bits, for processors whose 8-bit products saturate (x86 before VNNI).
        exclude: What of the integer flavours stays in float: operators, and names of nodes or of what they make.

    Raises:
        InputError: The flavour is unknown, or its activations are not calibrated.
        ModelError: The graph is no valid ONNX model, or this flavour cannot be made of it.
    """
    chosen = check_flavour(flavour)
    model = without_exits(model)
    check_graph(model)
    if chosen.weights is not None:
        return _labelled(chosen.weights, model, flavour)

    if chosen.integer is None:
        return Emission(model)
    if ranges is None:
        raise InputError(
            f"flavour {flavour} computes with 8-bit activations, whose ranges must be calibrated on data; "
            "flavours float, weight-only and sparse need none"
        )

    integer = chosen.integer
    return _labelled(lambda new: integer(new, ranges, reduce_range, exclude), model, flavour)


def _labelled(make: Callable[[QuantizedModel], Emission], model: QuantizedModel, flavour: str) -> Emission:
    """The flavour's name in the metadata of its own graph, which is checked; old models are converted first.

    What exporters note beside nodes, up to a tenth of the file of a small network, is left out.
    """
    emission = make(in_opset(model, MIN_OPSET))
    drop_exporter_notes(emission.model.graph)
    check_graph(emission.model)
    emission.model.graph.metadata_props.add(key=FLAVOUR_METADATA, value=flavour)

    opset = opset_of(model.graph)
    if opset < MIN_OPSET:
        note = f"converted from opset {opset} to {MIN_OPSET}, which flavour {flavour} needs"
        return Emission(emission.model, (note, *emission.notes))
    return emission


def emit(model: QuantizedModel, *, flavour: str, ranges: ActivationRanges | None = None) -> onnx.ModelProto:
    """The ONNX model of a flavour, in memory; see `prepare`."""
    made = prepare(model, flavour=flavour, ranges=ranges).model
    return with_initializers(made.graph, {name: dense_array(t) for name, t in made.tensors.items()})


def write_onnx(
    path: Path, model: QuantizedModel, *, flavour: str, ranges: ActivationRanges | None = None
) -> int:
    """Write the ONNX file of a flavour, whole or not at all; returns its size in bytes. See `prepare`.

    The model is checked first; one tensor at a time is in memory. A model beyond 2 GiB keeps its weights in a second
    file, see `data_file_of`.

    Raises:
        InputError: As for `prepare`, or a file cannot be written.
        ModelError: As for `prepare`.
    """
    return write_emission(path, prepare(model, flavour=flavour, ranges=ranges))


def write_emission(path: Path, emission: Emission) -> int:
    """Write what `prepare` gave; as `write_onnx`."""
    if fits_one_file(emission.model):
        with atomic_writer(path) as file:
            return write_onnx_stream(file, emission.model)

    beside = data_file_of(path)
    if beside.exists() and not path.exists():
        raise InputError(f"{beside} exists, and belongs to no {path.name}; move it, or choose another name")
    with atomic_writer(path) as file, atomic_writer(beside) as data:
        return write_onnx_with_data(file, data, emission.model, location=beside.name)


def data_file_of(path: Path) -> Path:
    """Where the weights of a model lie that one ONNX file does not hold.

    Example:
        >>> data_file_of(Path("models/m.onnx")).name
        'm.onnx.data'
    """
    return path.with_name(f"{path.name}.data")
