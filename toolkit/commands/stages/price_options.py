"""The options of `pack` that set a price per bit, and what it prints then."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpress.export.choices import Effort
from modelpress.export.errors import CommandLineError
from modelpress.toolkit.byte_sizes import parse_size
from modelpress.toolkit.commands.recipe_options import recipe_option

if TYPE_CHECKING:
    from modelpress.export.quantized import QuantizedModel
    from modelpress.toolkit.model_files.pricing import PricedReport, PriceRequest

_PANEL = "At a price per bit"

Rate = Annotated[
    float | None,
    typer.Option(
        metavar="PRICE",
        help="Round each weight to the code that is cheapest in error and in bytes, a bit costing this much: squared "
        "error of the outputs over their variance, as in 1e-7.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="The same, at the price that the file has this size at, as in 90kB.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
Loss = Annotated[
    str | None,
    typer.Option(
        metavar="LOSS",
        help="The same, at the highest price of this loss: as in 0.5pt, percentage points of the calibration inputs "
        "whose class changes; or as in 0.05, error of the outputs over their deviation.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
Frontier = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="The same at seven prices, each twice the one before: files, a table, JSON and a figure in this folder.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
Inputs = Annotated[
    Path | None,
    typer.Option(
        "--calibration-data",
        metavar="PATH",
        help="Inputs to measure on, without labels: an .npy file (float32 inputs, or uint8 images), the folder of "
        "CIFAR-10, an .npz file with an array for each input, or a folder of those, one for each call.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
NInputs = Annotated[
    int,
    recipe_option("calibrate.images", "--calibration-images", default=True, panel=_PANEL, metavar="N"),
]


@dataclass(frozen=True)
class PriceWords:
    """The options as they were written."""

    rate: float | None
    target: str | None
    loss: str | None
    data: Path | None
    n_inputs: int
    min_elements: int | None
    frontier: Path | None = None

    @property
    def given(self) -> bool:
        """Whether a price is asked for.

        Raises:
            CommandLineError: Inputs are given, and nothing to use them for.
        """
        wanted = any(option is not None for option in (self.rate, self.target, self.loss, self.frontier))
        if self.data is not None and not wanted:
            raise CommandLineError(
                "--calibration-data is for --rate, --target, --loss and --frontier: give one of them"
            )
        return wanted

    def request(self) -> "PriceRequest":
        """What they ask for.

        Raises:
            CommandLineError: They contradict each other, or a value is no such.
        """
        from modelpress.toolkit.model_files.pricing import MIN_ELEMENTS, PriceRequest

        if self.frontier is not None and (self.rate, self.target, self.loss) != (None, None, None):
            raise CommandLineError("--frontier sets the prices itself: leave out --rate, --target and --loss")
        loss, in_points = (None, True) if self.loss is None else parse_loss(self.loss)
        return PriceRequest(
            1.0 if self.frontier is not None else self.rate,
            None if self.target is None else parse_size(self.target, "--target"),
            loss,
            in_points,
            self.data,
            self.n_inputs,
            MIN_ELEMENTS if self.min_elements is None else self.min_elements,
        )


def parse_loss(text: str) -> tuple[float, bool]:
    """A loss, and whether it counts percentage points.

    Example:
        >>> parse_loss("0.5pt"), parse_loss("0.05")
        ((0.5, True), (0.05, False))
    """
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(pt)?\s*", text, re.ASCII)
    if found is None or not float(found[1]) > 0:
        raise CommandLineError(f"--loss is {text!r}; expected points as in 0.5pt, or an error as in 0.05")
    return float(found[1]), found[2] is not None


def pack_priced(
    model: "QuantizedModel",
    source: Path,
    output: Path,
    words: PriceWords,
    effort: Effort,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Pack at a price, and tell what became of every layer; or at a series of prices."""
    from modelpress.toolkit.commands.answers import answer
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.model_files.pricing import facts_of, pack_at_price

    if words.frontier is not None:
        from modelpress.toolkit.studies.frontier.curve import record_of, trace

        progress, request = TerminalProgress(), words.request()
        curve = trace(
            model, source.name, words.frontier, request, effort=effort, progress=progress, overwrite=overwrite
        )
        answer(record_of(curve), lambda: show_points(curve.points), as_json=as_json)
        return

    report = pack_at_price(model, output, words.request(), effort=effort, progress=TerminalProgress())
    answer(facts_of(report), lambda: show_priced(report), as_json=as_json)


def show_points(points: "Sequence[PricedReport]") -> None:
    """A row for each file."""
    from modelpress.toolkit.commands.console import print_table

    rows = [
        {
            "file": Path(point.output).name,
            "price": f"{point.price:.2e}",
            "bytes": f"{point.size_bytes:,}",
            "ratio": f"{point.ratio:.1f}x",
            "error": f"{point.measured_error:.2%}",
            "changed": "–" if point.changed_points is None else f"{point.changed_points:.2f} %",
        }
        for point in points
    ]
    headings = {
        "file": "file",
        "price": "price",
        "bytes": "bytes",
        "ratio": "smaller",
        "error": "error of the outputs",
        "changed": "classes changed",
    }
    narrow = {key: title for key, title in headings.items() if key not in ("price", "ratio")}
    print_table("", rows, headings, narrow=[narrow])


def show_priced(report: "PricedReport") -> None:
    """Every layer, then the file."""
    from modelpress.toolkit.commands.console import print_table
    from modelpress.toolkit.commands.saying import say_line

    rows = [
        {
            "layer": layer.name,
            "operator": layer.operator,
            "weights": f"{layer.n_elements:,}",
            "bits": str(layer.bits),
            "each": f"{layer.bits_per_weight:.2f}",
            "zeros": f"{layer.sparsity:.1%}",
            "loss": f"{layer.loss:.1e}",
        }
        for layer in report.layers
    ]
    headings = {
        "layer": "layer",
        "operator": "operator",
        "weights": "weights",
        "bits": "bits",
        "each": "bits per weight",
        "zeros": "zeros",
        "loss": "estimated loss",
    }
    print_table("", rows, headings, text=("operator",))
    changed = (
        "" if report.changed_points is None else f", {report.changed_points:.2f} % of the classes changed"
    )
    say_line(
        f"{report.output}: {report.size_bytes:,} bytes, {report.ratio:.2f}x smaller, price {report.price:.3g}, error "
        f"of the outputs {report.measured_error:.2%}{changed}"
    )
