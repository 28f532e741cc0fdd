"""The `bench` commands: what files weigh, how right and how fast they are; the speed of coding and of training."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from modelpress.export.errors import InputError
from modelpress.toolkit.commands.options import (
    DATA,
    MEASUREMENT,
    OUTPUT,
    AsJson,
    Config,
    DataDir,
    DeviceName,
    Overwrite,
    PressFile,
    Settings,
    emit_json,
    merged_recipe,
)


class _FilesByDefault(TyperGroup):
    """``bench FILE…`` is ``bench files FILE…``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the command where it is left out."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["files", *args]
        return super().parse_args(ctx, args)


bench_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", cls=_FilesByDefault)

JsonFile = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write JSON here.", rich_help_panel=OUTPUT)
]
Rounds = Annotated[
    int, typer.Option(min=1, help="How often contestants take turns.", rich_help_panel=MEASUREMENT)
]


@bench_app.command("files")
def files(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help=".press or .onnx files; the first is the baseline."),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            help="cifar10 or digits.",
            show_default="what the first file was trained on",
            rich_help_panel=DATA,
        ),
    ] = None,
    data_dir: DataDir = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N ...", help="Batch sizes.", show_default="1 8 64", rich_help_panel=MEASUREMENT
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(metavar="N ...", help="Thread counts.", show_default="1 2", rich_help_panel=MEASUREMENT),
    ] = None,
    rounds: Annotated[
        int,
        typer.Option(
            min=1,
            help="How often the files take turns; a verdict needs three.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = 5,
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="NAME=FILE.npy",
            help="What the input of this name is fed with, where random numbers do not suit. Repeatable.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = [],
    profile: Annotated[
        Literal["mlperf-tiny"] | None,
        typer.Option(
            help="mlperf-tiny: 200 images one at a time, one thread; no official MLPerf result.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write results.json here.", rich_help_panel=OUTPUT)
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure size, sparsity, accuracy and latency in ONNX Runtime. Needs no torch.

    Each file is timed in processes of its own, in turns; the verdict against the first is a ratio with a 95 % interval.
    Leave the machine alone meanwhile.
    """
    from modelpress.benchmarks.records import write_results
    from modelpress.toolkit.commands.bench.files import BenchPlan, bench_files, bench_profile, parse_inputs
    from modelpress.toolkit.commands.bench.tables import show_bench
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.data.measured_set import MeasuredSet
    from modelpress.toolkit.output_folder import check_output_file

    if output is not None:
        check_output_file(output, overwrite=overwrite)
    if profile is not None and (batch or threads or inputs):
        raise InputError(
            f"--profile {profile} fixes batch size, threads and inputs: leave out --batch, --threads and --input"
        )
    plan = BenchPlan(
        data=MeasuredSet(dataset, None if data_dir is None else str(data_dir)),
        batches=_numbers("--batch", "1 8 64" if batch is None else batch),
        threads=_numbers("--threads", "1 2" if threads is None else threads),
        rounds=rounds,
        inputs=parse_inputs(inputs),
    )
    measure = bench_files if profile is None else bench_profile
    results = measure(paths, plan, TerminalProgress())
    show_bench(results)  # before anything is written: a full disk takes no figures away
    if output is not None:
        write_results(output, results)
    emit_json(results.model_dump(mode="json"), as_json=as_json)


@bench_app.command("size")
def size(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE", help=".press files.")],
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the ladder of the first file here (.svg).", rich_help_panel=OUTPUT),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """The size ladder: the same weights in every form, each decoded again; per tensor and in all. Needs no torch."""
    from modelpress.toolkit.commands.bench.codes import draw_ladder, ladder_of, show_ladder
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_output_file

    if plot is not None:
        check_output_file(plot, overwrite=overwrite)
        if plot.suffix != ".svg":
            raise InputError(f"{plot}: expected a name that ends in .svg")
    ladders = [ladder_of(path, TerminalProgress()) for path in paths]
    for ladder in ladders:
        show_ladder(ladder)
    if plot is not None:
        draw_ladder(plot, ladders[0])
    emit_json(ladders, as_json=as_json)


@bench_app.command("coding")
def coding(
    path: PressFile,
    symbols: Annotated[
        int,
        typer.Option(min=1000, help="Symbols in the stream that is timed.", rich_help_panel=MEASUREMENT),
    ] = 25_000_000,
    rounds: Rounds = 5,
    output: JsonFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Speed of Huffman beside zstandard, of mixed contexts, and of loading into ONNX Runtime. Needs no torch."""
    from modelpress.toolkit.commands.bench.codes import measure_coding, show_coding
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_output_file, write_json

    if output is not None:
        check_output_file(output, overwrite=overwrite)
    facts = measure_coding(path, n_symbols=symbols, rounds=rounds, progress=TerminalProgress())
    show_coding(facts)
    if output is not None:
        write_json(output, facts)
    emit_json(facts, as_json=as_json)


@bench_app.command("scaling")
def scaling(
    weights: Annotated[
        str, typer.Option(metavar="N ...", help="Sizes of the tensor.", rich_help_panel=MEASUREMENT)
    ] = "1000000 10000000 100000000",
    effort: Annotated[
        str, typer.Option(help="fast, default or max.", rich_help_panel=MEASUREMENT)
    ] = "default",
    output: JsonFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Time per weight and memory of packing and loading one tensor of growing size. Needs no torch."""
    from modelpress.toolkit.commands.bench.codes import measure_scaling, show_scaling
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_output_file, write_json

    if output is not None:
        check_output_file(output, overwrite=overwrite)
    facts = measure_scaling(_numbers("--weights", weights), effort, TerminalProgress())
    show_scaling(facts)
    if output is not None:
        write_json(output, facts)
    emit_json(facts, as_json=as_json)


@bench_app.command("training")
def training(
    config: Config = None,
    data_dir: DataDir = None,
    settings: Settings = [],
    device: DeviceName = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per step.", rich_help_panel=MEASUREMENT)] = 256,
    images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Training images per epoch.",
            show_default="5120 on a CPU, all on a GPU",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=0, help="Processes that load images for the plain loop.", rich_help_panel=MEASUREMENT
        ),
    ] = 2,
    rounds: Rounds = 5,
    output: JsonFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Images per second in training beside a plain PyTorch loop, in turn on the same device.

    The recipe gives data, network and the options of SGD. Each measurement trains a fresh network in a process of its
    own for two epochs, of which the second counts; leave the machine alone meanwhile.
    """
    from modelpress.toolkit.commands.bench.codes import show_training
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_output_file, write_json
    from modelpress.toolkit.studies.training_speed.rounds import measure_training

    if output is not None:
        check_output_file(output, overwrite=overwrite)
    facts = measure_training(
        merged_recipe(config, settings, {"data.dir": data_dir, "run.device": device}),
        batch=batch,
        images=images,
        workers=workers,
        rounds=rounds,
        progress=TerminalProgress(),
    )
    show_training(facts)
    if output is not None:
        write_json(output, facts)
    emit_json(facts, as_json=as_json)


@bench_app.command("runtime")
def runtime(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="ONNX files to run in other versions.", show_default=False),
    ] = [],
    versions: Annotated[
        str | None,
        typer.Option(
            metavar="V,V,...",
            help="Versions of ONNX Runtime, as in 1.15.1,1.20.0; each is fetched into an environment of its own.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    output: JsonFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """What the installed ONNX Runtime does with each way of storing weights; or whether files run in other versions.

    Without files: every row of the table that the flavours are built on is tried out. Needs no torch.
    """
    from modelpress.toolkit.commands.bench.runtime import (
        capabilities,
        show_capabilities,
        show_versions,
        versions_of,
    )
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_output_file, write_json

    if bool(paths) != (versions is not None):
        raise InputError("give both or neither: FILE… to run, and --versions to run them in")
    if output is not None:
        check_output_file(output, overwrite=overwrite)
    if versions is None:
        facts = capabilities()
        show_capabilities(facts)
    else:
        facts = versions_of(paths, versions.replace(",", " ").split(), TerminalProgress())
        show_versions(facts)
    if output is not None:
        write_json(output, facts)
    emit_json(facts, as_json=as_json)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    parts = text.replace(",", " ").split()
    if not parts or not all(part.isdecimal() and len(part) < 10 and int(part) > 0 for part in parts):
        raise InputError(f"{option} is {text!r}; expected positive whole numbers, as in {option} 1 8 64")
    return tuple(int(part) for part in parts)
