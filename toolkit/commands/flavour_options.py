"""The options that choose an ONNX flavour and calibrate its activations, shared by `onnx` and `bundle`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpress.export.choices import CalibrationMethod, ExitForm, FlavourName
from modelpress.toolkit.commands.recipe_options import recipe_option
from modelpress.toolkit.recipe import CalibrateOptions

if TYPE_CHECKING:
    from modelpress.toolkit.model_files.onnx_writing import FlavourRequest

_PANEL = "Calibration of int8"
DEFAULTS = CalibrateOptions()

Flavour = Annotated[
    FlavourName,
    typer.Option(
        "--flavour",
        help="[b]float[/]: decoded weights. [b]weight-only[/], [b]sparse[/]: packed codes that the runtime expands "
        "at load. [b]int8[/], [b]int8-sparse[/]: integer arithmetic.",
    ),
]
CalibrationData = Annotated[
    Path | None,
    typer.Option(
        "--calibration-data",
        metavar="PATH",
        help="Inputs to measure the ranges of activations on: an .npy file (float32 inputs, or uint8 images), the "
        "folder of CIFAR-10, an .npz file with an array for each input, or a folder of those, one for each call; or "
        "examples of yours as --data takes them elsewhere, of which the training part is used.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
CalibrationImages = Annotated[
    int, recipe_option("calibrate.images", "--calibration-images", default=True, panel=_PANEL, metavar="N")
]
CalibrationRule = Annotated[
    CalibrationMethod, recipe_option("calibrate.method", "--calibration-method", default=True, panel=_PANEL)
]
Percentile = Annotated[
    float, recipe_option("calibrate.percentile", "--percentile", default=True, panel=_PANEL)
]
ReduceRange = Annotated[
    bool, recipe_option("calibrate.reduce_range", "--reduce-range", default=False, panel=_PANEL)
]


Exclude = Annotated[
    list[str],
    typer.Option(
        "--exclude",
        metavar="NAME|OPERATOR",
        help="Leave in float: a node, by its name or that of what it makes, or all of an operator. Repeatable.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
AutoExclude = Annotated[
    float | None,
    typer.Option(
        "--auto-exclude",
        metavar="LOSS",
        help="Leave layers in float, the noisiest first, until the error of the outputs is at most this part of their "
        "size, as in 0.05.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
Noise = Annotated[
    bool,
    typer.Option(
        "--noise", help="Show signal to noise of every layer, float against integers.", rich_help_panel=_PANEL
    ),
]


def flavour_request(
    flavour: FlavourName,
    data: Path | None,
    *,
    n_images: int,
    method: CalibrationMethod,
    percentile: float,
    reduce_range: bool,
    exclude: Sequence[str] = (),
    loss: float | None = None,
    noise: bool = False,
    opset: int | None = None,
    exits: ExitForm | None = None,
) -> "FlavourRequest":
    """The options above as one value.

    Raises:
        CommandLineError: They contradict each other.
    """
    from modelpress.export.post_training.calibration import CalibrationOptions
    from modelpress.toolkit.model_files.onnx_writing import FlavourRequest

    options = CalibrationOptions(method=method, percentile=percentile)
    return FlavourRequest(
        flavour, data, n_images, options, reduce_range, tuple(exclude), loss, noise, opset, exits
    )
