"""The `bench` command itself: files measured against each other."""

from pathlib import Path
from typing import Annotated

import typer

from modelpress.benchmarks.profiles import Profile
from modelpress.export.choices import DEFAULT_TIMEOUT_S
from modelpress.export.errors import CommandLineError
from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.given_inputs import InputFiles, InputShapes, given_inputs
from modelpress.toolkit.commands.options import (
    MEASUREMENT,
    OUTPUT,
    AsJson,
    DataFolder,
    DataSet,
    DataSettings,
    MaxDecoded,
    Overwrite,
    OwnData,
    Timeout,
    Wide,
)

EXAMPLE = """
modelpress bench dense.onnx model.press
modelpress bench model.press other.onnx --batch 1 8 64 --threads 1 2 -o results.json
modelpress bench own.onnx --data photos --set data.normalise=imagenet --set data.resize=224
modelpress bench tokens.onnx --input ids=ids.npy --input mask=mask.npy
modelpress bench --profile mlperf-tiny model.press --data-dir cifar10
"""
_BATCHES, _THREADS = "1 8 64", "1 2"


def command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help=".press or .onnx files; the first is the baseline.", show_default=False
        ),
    ],
    data: OwnData = None,
    data_settings: DataSettings = [],
    dataset: DataSet = None,
    data_dir: DataFolder = None,
    batch: Annotated[
        list[str],
        typer.Option(
            metavar="N ...", help="Batch sizes.", show_default=_BATCHES, rich_help_panel=MEASUREMENT
        ),
    ] = [],
    threads: Annotated[
        list[str],
        typer.Option(
            metavar="N ...", help="Thread counts.", show_default=_THREADS, rich_help_panel=MEASUREMENT
        ),
    ] = [],
    rounds: Annotated[
        int,
        typer.Option(
            min=1,
            help="How often the files take turns; a verdict needs three.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = 5,
    inputs: InputFiles = [],
    shapes: InputShapes = [],
    profile: Annotated[
        Profile | None,
        typer.Option(
            help="200 images one at a time, one thread; no official MLPerf result.",
            show_default=False,
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    max_decoded: MaxDecoded = 2,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Write results.json here.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Overwrite = False,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Measure size, sparsity, accuracy and latency in ONNX Runtime. Needs no torch.

    Each file is timed in processes of its own, in turns; the verdict against the first is a ratio with a 95 % interval.
    Leave the machine alone meanwhile.
    """
    from modelpress.benchmarks.records import write_results
    from modelpress.toolkit.commands.bench.numbers import numbers
    from modelpress.toolkit.commands.bench.tables import show_bench
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.model_files.measured_data import measured_set
    from modelpress.toolkit.model_files.measuring import BenchPlan, bench_files, bench_profile
    from modelpress.toolkit.output_folder import check_output_file

    if output is not None:
        check_output_file(output, overwrite=overwrite)
    if profile is not None and (batch or threads or inputs or shapes):
        raise CommandLineError(
            f"--profile {profile} fixes batch size, threads and inputs: leave out --batch, --threads, --input "
            "and --shape"
        )
    plan = BenchPlan(
        data=measured_set(data, data_settings, dataset, data_dir),
        batches=numbers("--batch", " ".join(batch) if batch else _BATCHES),
        threads=numbers("--threads", " ".join(threads) if threads else _THREADS),
        rounds=rounds,
        inputs=given_inputs(inputs, shapes),
        bounded=not batch,
        max_decoded_bytes=max_decoded << 30,
    )
    measure = bench_files if profile is None else bench_profile
    results = measure(paths, plan, TerminalProgress())

    # before anything is written: a full disk takes no figures away
    answer(results.model_dump(mode="json"), lambda: show_bench(results, wide=wide), as_json=as_json)
    if output is not None:
        write_results(output, results)
