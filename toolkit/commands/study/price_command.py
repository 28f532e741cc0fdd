"""The `study price` command."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelpress.export.choices import CALIBRATION_INPUTS
from modelpress.export.errors import CommandLineError
from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import DATA, MEASUREMENT, AsJson
from modelpress.toolkit.commands.recipe_options import recipe_option
from modelpress.toolkit.commands.study.network_options import StartAgain, StudyFolder

if TYPE_CHECKING:
    from modelpress.toolkit.studies.price.study import PriceFile

EXAMPLE = """
modelpress study price a.onnx b.onnx --data-dir DIR --prices 2e-8,4e-8,8e-8
modelpress study price a.onnx --dataset digits --calibration-data inputs.npy --prices 1e-6
"""
_PRICE = Path("runs/price")
_FILES = {"model": "model", "kind": "rounded", "setting": "bits or price", "bytes": "bytes", "top1": "top-1"}
_FILES |= {"zeros": "zeros", "seconds": "processor s"}
_COMPARED = {"model": "model", "plain": "plain, bytes", "priced": "at a price", "smaller": "smaller"}


def command(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Float ONNX models.", show_default=False)
    ],
    prices: Annotated[
        str,
        typer.Option(help="Prices of a bit, with commas.", rich_help_panel=MEASUREMENT, show_default=False),
    ],
    dataset: Annotated[str, typer.Option(help="cifar10 or digits.", rich_help_panel=DATA)] = "cifar10",
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the data set.", rich_help_panel=DATA, show_default=False),
    ] = None,
    calibration_data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Training inputs, as for `pack`.",
            rich_help_panel=DATA,
            show_default="the folder of the data set",
        ),
    ] = None,
    calibration_images: Annotated[
        int, recipe_option("calibrate.images", "--calibration-images", default=True, panel=DATA, metavar="N")
    ] = CALIBRATION_INPUTS,
    widths: Annotated[
        str,
        typer.Option(
            help="Widths of plain rounding, in this order until a file has lost too much.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = "8,7,6,5,4,3,2",
    points: Annotated[
        float,
        typer.Option(min=0, help="Percentage points that a file may lose.", rich_help_panel=MEASUREMENT),
    ] = 0.5,
    output: StudyFolder = _PRICE,
    overwrite: StartAgain = False,
    as_json: AsJson = False,
) -> None:
    """Models packed at a price beside the nearest codes at every width: bytes at equal accuracy.

    Prices are chosen beforehand; each file is measured on the test images once. Stop it any time: the same command
    goes on.
    """
    from modelpress.benchmarks.report.page import markdown_table
    from modelpress.export.files.atomic import write_atomically
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.data.registry import load_data_set
    from modelpress.toolkit.output_folder import write_json
    from modelpress.toolkit.studies.price.study import StudyPlan, run_study, study_record

    chosen = _numbers(prices, "--prices", "2e-8,4e-8", lambda price: 0 < price < 1)
    bits = _numbers(widths, "--widths", "8,6,4", lambda width: width in range(2, 9))
    calibration = calibration_data or data_dir
    if calibration is None:
        raise CommandLineError("give --data-dir, or --calibration-data PATH")
    data = load_data_set(dataset, folder=None if data_dir is None else str(data_dir), test_only=True)
    plan = StudyPlan(data, calibration, calibration_images, chosen, tuple(map(int, bits)), points)
    measured = run_study(files, output, plan, TerminalProgress(), overwrite=overwrite)

    record = study_record(measured, plan)
    write_json(output / "price.json", record)
    tables = (
        markdown_table(map(_compared, record["compared"]), _COMPARED),
        markdown_table(map(_row, measured), _FILES),
    )
    write_atomically(output / "price.md", ("\n\n".join(tables) + "\n").encode())
    answer(record, lambda: _show(record, measured, output), as_json=as_json)


def _numbers(text: str, option: str, example: str, allowed: Callable[[float], bool]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    if not numbers or not all(map(allowed, numbers)):
        raise CommandLineError(f"{option} is {text!r}; expected numbers as in {example}")
    return numbers


def _show(record: dict[str, Any], files: "Sequence[PriceFile]", output: Path) -> None:
    from modelpress.toolkit.commands.console import answer_line, print_table

    print_table("", map(_row, files), _FILES)
    print_table("Smallest files", map(_compared, record["compared"]), _COMPARED)
    answer_line(f"{output / 'price.json'} holds all of it")


def _row(file: "PriceFile") -> dict[str, Any]:
    return {
        "model": file.model,
        "kind": file.kind,
        "setting": f"{file.setting:g}" if file.setting else "–",
        "bytes": f"{file.size_bytes:,}",
        "top1": f"{file.top1:.2%}",
        "zeros": f"{file.zeros:.1%}" if file.zeros else "–",
        "seconds": f"{file.processor_s:.0f}" if file.processor_s else "–",
    }


def _compared(found: dict[str, Any]) -> dict[str, Any]:
    def shown(file: dict[str, Any] | None) -> str:
        return "–" if file is None else f"{file['size_bytes']:,} ({file['top1']:.2%})"

    smaller = found["smaller"]
    return {
        "model": found["model"],
        "plain": shown(found["plain"]),
        "priced": shown(found["priced"]),
        "smaller": "–" if smaller is None else f"{smaller:.1%}",
    }
