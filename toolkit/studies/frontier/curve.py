"""One model packed at a series of prices: a file, a size and a loss for each."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelpress.benchmarks.environment import describe_environment
from modelpress.export.choices import Effort
from modelpress.export.press.writing import write_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.toolkit.model_files.pricing import PricedPacking, PricedReport, PriceRequest, report_of
from modelpress.toolkit.output_folder import prepare_output_folder, write_json
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.studies.figure_files import save_figure
from modelpress.toolkit.studies.frontier.figure import curve_figure

SCHEMA_VERSION = 1
_OCTAVES = range(-3, 4)  # of the price, around the one that searches begin with
RECORD, FIGURE = "frontier.json", "frontier"
_UNFINISHED = ".search"


@dataclass(frozen=True)
class Curve:
    """The points of a model, the largest file first.

    Attributes:
        model: Its name.
        n_inputs: That it was calibrated on, at most.
        points: One file each.
        environment: That it was measured in.
    """

    model: str
    n_inputs: int
    points: tuple[PricedReport, ...]
    environment: dict[str, Any]


def trace(
    model: QuantizedModel,
    name: str,
    folder: Path,
    request: PriceRequest,
    *,
    effort: Effort,
    progress: Progress,
    overwrite: bool = False,
    octaves: Sequence[int] = _OCTAVES,
) -> Curve:
    """Pack a model at prices an octave apart; the folder then holds the files, `RECORD` and the figure.

    Interrupted, the same call goes on where it was.

    Args:
        model: In float.
        name: Of the model, for the record.
        folder: Made if it is not there.
        request: Its inputs and the smallest weights; the price is of no account.
        effort: How hard files are written.
        progress: Told of every price.
        overwrite: Replace the files of an earlier curve.
        octaves: Where the prices lie.

    Raises:
        InputError: The calibration data do not fit, or the folder cannot be written.
        ModelError: The model holds something that cannot be packed.
    """
    unfinished = folder / _UNFINISHED
    prepare_output_folder(folder, overwrite=overwrite or unfinished.is_dir(), resume=None)
    packing = PricedPacking(model, request, effort=effort, progress=progress, folder=unfinished)
    points = []
    for octave in octaves:
        priced, _ = packing.at(packing.first_price * 2.0**octave)
        path = folder / f"price-{priced.price:.2e}.press"
        size = write_artifact(path, priced.model, effort=effort)
        points.append(report_of(packing, priced, path, size))

    curve = Curve(name, request.n_inputs, tuple(points), describe_environment())
    write_json(folder / RECORD, record_of(curve))
    save_figure(
        curve_figure([(p.size_bytes, p.measured_error, p.changed_points) for p in points], name),
        folder,
        FIGURE,
    )
    packing.finished()
    return curve


def record_of(curve: Curve) -> dict[str, Any]:
    """What the JSON file holds: no path of this machine."""
    points = [{**asdict(point), "output": Path(point.output).name} for point in curve.points]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "frontier",
        "model": curve.model,
        "calibration_inputs": curve.n_inputs,
        "environment": curve.environment,
        "points": points,
    }
