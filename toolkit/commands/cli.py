"""The command line. Stages are imported where they start, so that `--help` answers at once."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelpress.export.errors import InputError, ModelpressError
from modelpress.toolkit.commands.bench.cli import bench_app
from modelpress.toolkit.commands.bundle.cli import bundle
from modelpress.toolkit.commands.options import (
    DATA,
    MEASUREMENT,
    OUTPUT,
    AllowExternalData,
    AsJson,
    Bf16,
    CalibrationData,
    CalibrationImages,
    CalibrationRule,
    Config,
    DataDir,
    DeviceName,
    Download,
    Effort,
    FinetuneEpochs,
    Flavour,
    Lossless,
    MapNames,
    MaxDecoded,
    ModelOrNetwork,
    NetworkFile,
    Overwrite,
    PackBits,
    PackEffort,
    PackMinElements,
    PackPerChannel,
    PackSparsity,
    PackSymmetric,
    PenaltyEpochs,
    Percentile,
    PressFile,
    ReduceRange,
    Resume,
    Seed,
    Settings,
    TrainEpochs,
    common_keys,
    emit_json,
    flavour_request,
    merged_recipe,
    need_torch,
    output_file,
    recipe_option,
    show_results,
)
from modelpress.toolkit.commands.study.cli import study_app
from modelpress.toolkit.training.interrupt import Interrupted

if TYPE_CHECKING:
    from modelpress.export.post_training.packing import WeightOptions
    from modelpress.toolkit.compression.run import NetworkResult

app = typer.Typer(
    name="modelpress",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(
    bench_app,
    name="bench",
    help="Measure files: size, sparsity, accuracy, latency; sizes in every form; speed of the coding.",
    rich_help_panel="Measurements",
)
app.add_typer(
    study_app, name="study", help="Run a whole series of experiments.", rich_help_panel="Measurements"
)


app.command(rich_help_panel="Files")(bundle)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Make trained networks small and hand them over ready to run.

    Sizes are those of files that decode bit-exactly; accuracy and latency are measured in ONNX Runtime.
    """
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"modelpress {installed('modelpress')}")
        raise typer.Exit


@app.command(rich_help_panel="The whole chain")
def run(
    config: Config = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Trained weights to start from (.pt state dict or .safetensors).", rich_help_panel=DATA
        ),
    ] = None,
    map_names: MapNames = None,
    data_dir: DataDir = None,
    download: Download = False,
    epochs: FinetuneEpochs = None,
    settings: Settings = [],
    seed: Seed = None,
    device: DeviceName = None,
    bf16: Bf16 = None,
    output: Annotated[
        Path, typer.Option("-o", "--output-dir", help="Folder for all results.", rich_help_panel=OUTPUT)
    ] = Path("runs/modelpress"),
    overwrite: Overwrite = False,
    resume: Resume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Load, prune, quantize, finetune, pack, emit ONNX, measure, report.

    Without options: a ResNet-20 trained on the handwritten digits inside scikit-learn. No download, minutes on a CPU.
    """
    recipe = merged_recipe(
        config,
        settings,
        {
            "model.checkpoint": checkpoint,
            "model.map_names": map_names,
            "finetune.epochs": epochs,
            **common_keys(data_dir, download, seed, device, bf16),
        },
    )
    if dry_run:
        from modelpress.toolkit.recipe import dump_recipe

        typer.echo(dump_recipe(recipe), nl=False)
        return
    need_torch(together=True)
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.compression.run import run_recipe

    results = run_recipe(recipe, output, overwrite=overwrite, resume=resume, progress=TerminalProgress())
    if results is not None:  # this process did not only help
        show_results(results, output, as_json=as_json)


@app.command(rich_help_panel="Stage by stage")
def train(
    config: Config = None,
    data_dir: DataDir = None,
    download: Download = False,
    epochs: TrainEpochs = None,
    settings: Settings = [],
    seed: Seed = None,
    device: DeviceName = None,
    bf16: Bf16 = None,
    output: Path = output_file("Network file.", "dense.safetensors"),
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train the recipe's dense network."""
    recipe = merged_recipe(
        config,
        settings,
        {
            "train.epochs": epochs,
            **common_keys(data_dir, download, seed, device, bf16),
        },
    )
    need_torch()
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.compression.run import train_network

    trained = train_network(recipe, output, overwrite=overwrite, resume=resume, progress=TerminalProgress())
    _tell_training(trained, output, as_json=as_json)


@app.command(rich_help_panel="Stage by stage")
def prune(
    network: NetworkFile,
    config: Config = None,
    map_names: MapNames = None,
    data_dir: DataDir = None,
    download: Download = False,
    sparsity: Annotated[
        float | None,
        recipe_option("Fraction of the prunable weights removed.", min=0, max=1),
    ] = None,
    epochs: PenaltyEpochs = None,
    settings: Settings = [],
    seed: Seed = None,
    device: DeviceName = None,
    bf16: Bf16 = None,
    output: Path = output_file("Network file.", "pruned.safetensors"),
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Remove the weights closest to zero, at once or by a penalty while training.

    The methods proximal-l1, trimmed-l1 and group-lasso train, and so need the images; the others read no data.
    """
    recipe = merged_recipe(
        config,
        settings,
        {
            "model.checkpoint": network,
            "model.map_names": map_names,
            "prune.sparsity": sparsity,
            "sparsify.epochs": epochs,
            **common_keys(data_dir, download, seed, device, bf16),
        },
    )
    need_torch()
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.compression.pruning.removal import removed_weights
    from modelpress.toolkit.compression.run import prune_network

    if not recipe.prune.by_penalty and (epochs is not None or resume):
        raise InputError(
            f"--epochs and --resume are for pruning by a penalty; prune.method is {recipe.prune.method}"
        )
    pruned = prune_network(recipe, output, overwrite=overwrite, resume=resume, progress=TerminalProgress())
    _tell(f"{output}: {removed_weights(pruned.state)}")
    emit_json(
        {
            "output": str(output),
            **pruned.state.history["prune"],
            **({"epochs": pruned.epochs} if pruned.epochs else {}),
        },
        as_json=as_json,
    )


@app.command(rich_help_panel="Stage by stage")
def sensitivity(
    network: NetworkFile,
    config: Config = None,
    map_names: MapNames = None,
    data_dir: DataDir = None,
    download: Download = False,
    bits: Annotated[
        str, typer.Option(metavar="N,N,...", help="Code widths, 2 to 8.", rich_help_panel=MEASUREMENT)
    ] = "2,3,4,5,6,8",
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Of the whole artifact, in bytes, or as in 60kB.",
            show_default="what 4 bits in every layer take",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    n_images: Annotated[
        int,
        typer.Option(
            "--images", min=1, help="Held-out images to measure on, at most.", rich_help_panel=MEASUREMENT
        ),
    ] = 2000,
    settings: Settings = [],
    seed: Seed = None,
    device: DeviceName = None,
    output: Path = output_file("JSON file.", "sensitivity.json"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure what each layer loses in each bit width, and propose widths that keep a budget of bytes.

    One layer at a time is quantized, without training, and the loss measured on held-out training images. The
    proposal is packed and measured beside uniform widths, and printed as lines for the recipe.
    """
    recipe = merged_recipe(
        config,
        settings,
        {
            "model.checkpoint": network,
            "model.map_names": map_names,
            **common_keys(data_dir, download, seed, device, None),
        },
    )
    need_torch()
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.commands.sensitivity_tables import show_sensitivity
    from modelpress.toolkit.output_folder import check_output_file, write_json
    from modelpress.toolkit.studies.sensitivity.study import (
        Question,
        measure_sensitivity,
        parse_bits,
        parse_size,
    )

    question = Question(parse_bits(bits), None if budget is None else parse_size(budget), n_images)
    check_output_file(output, overwrite=overwrite)
    record = measure_sensitivity(recipe, question, progress=TerminalProgress())
    write_json(output, record)
    show_sensitivity(record)
    _tell(f"{output}: {len(record['layers'])} layers, {len(record['bits'])} widths")
    emit_json(record, as_json=as_json)


@app.command(rich_help_panel="Stage by stage")
def quantize(
    network: NetworkFile,
    config: Config = None,
    map_names: MapNames = None,
    data_dir: DataDir = None,
    download: Download = False,
    bits: Annotated[
        int | None,
        recipe_option("Code width in bits.", min=2, max=8),
    ] = None,
    epochs: FinetuneEpochs = None,
    settings: Settings = [],
    seed: Seed = None,
    device: DeviceName = None,
    bf16: Bf16 = None,
    output: Path = output_file("Network file.", "quantized.safetensors"),
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Quantize a network and finetune it on its grid, zeros held."""
    recipe = merged_recipe(
        config,
        settings,
        {
            "model.checkpoint": network,
            "model.map_names": map_names,
            "quantize.bits": bits,
            "finetune.epochs": epochs,
            **common_keys(data_dir, download, seed, device, bf16),
        },
    )
    need_torch()
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.compression.run import quantize_network

    quantized = quantize_network(
        recipe, output, overwrite=overwrite, resume=resume, progress=TerminalProgress()
    )
    _tell_training(quantized, output, as_json=as_json)


@app.command(rich_help_panel="Stage by stage")
def pack(
    file: ModelOrNetwork,
    config: Config = None,
    settings: Settings = [],
    map_names: MapNames = None,
    bits: PackBits = None,
    symmetric: PackSymmetric = None,
    per_channel: PackPerChannel = None,
    sparsity: PackSparsity = None,
    min_elements: PackMinElements = None,
    lossless: Lossless = None,
    allow_external_data: AllowExternalData = None,
    effort: PackEffort = None,
    output: Path = output_file("Artifact.", "model.press"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write the artifact of a network, or of any ONNX model. The latter needs no torch.

    A network file: batch norm is folded and the codes it was trained with are encoded. An ONNX model: its weights
    are quantized after training, all else is stored as it is; [b]--lossless[/] quantizes nothing.
    """
    from modelpress.toolkit.commands.packing import check_options_of_kind, is_onnx, pack_options
    from modelpress.toolkit.output_folder import check_output_file

    quantization: dict[str, Any] = {
        "lossless": lossless,
        "bits": bits,
        "symmetric": symmetric,
        "per_channel": per_channel,
        "sparsity": sparsity,
        "min_elements": min_elements,
    }
    check_options_of_kind(
        file,
        recipe={"config": config, "set": settings or None, "map_names": map_names},
        foreign={**quantization, "allow_external_data": allow_external_data},
    )
    if is_onnx(file):
        options = pack_options(**quantization)
        check_output_file(output, overwrite=overwrite)
        _pack_onnx(file, output, options, bool(allow_external_data), effort or "default", as_json=as_json)
        return
    recipe = merged_recipe(config, settings, {"pack.effort": effort, "model.map_names": map_names})
    need_torch()
    from modelpress.export.press.writing import write_artifact
    from modelpress.toolkit.compression.freeze import freeze_state
    from modelpress.toolkit.compression.network_file import load_network

    check_output_file(output, overwrite=overwrite)
    loaded = load_network(file, recipe.model)
    for note in loaded.notes:
        _tell(note)
    frozen = freeze_state(loaded)
    size = write_artifact(output, frozen, effort=recipe.pack.effort)
    _tell(f"{output}: {size:,} bytes, decodes bit-exactly")
    emit_json({"output": str(output), "size_bytes": size}, as_json=as_json)


@app.command("onnx", rich_help_panel="Stage by stage")
def emit_onnx(
    file: PressFile,
    flavour: Flavour = "float",
    calibration_data: CalibrationData = None,
    calibration_images: CalibrationImages = 512,
    calibration_method: CalibrationRule = "min-max",
    percentile: Percentile = 99.99,
    reduce_range: ReduceRange = False,
    output: Path = output_file("ONNX file.", "model.onnx"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a checked ONNX model from an artifact. Needs no torch."""
    from modelpress.export.press.reading import open_artifact
    from modelpress.toolkit.commands.onnx_writing import write_flavour
    from modelpress.toolkit.output_folder import check_output_file

    request = flavour_request(
        flavour,
        calibration_data,
        n_images=calibration_images,
        method=calibration_method,
        percentile=percentile,
        reduce_range=reduce_range,
    )
    check_output_file(output, overwrite=overwrite)
    with open_artifact(file) as artifact:
        facts = write_flavour(output, artifact.lazy_model(), request)
    _tell(f"{output}: {facts['size_bytes']:,} bytes, flavour {flavour}, checked")
    for note in facts["notes"]:
        _tell(f"note: {note}")
    emit_json(facts, as_json=as_json)


@app.command(rich_help_panel="Files")
def inspect(file: PressFile, max_decoded: MaxDecoded = 2, as_json: AsJson = False) -> None:
    """Show what an artifact holds and where its bytes are. Needs no torch."""
    from modelpress.toolkit.commands.files import inspection, show_inspection

    facts = inspection(file, max_decoded_bytes=max_decoded << 30)
    if not as_json:
        show_inspection(facts)
    emit_json(facts, as_json=as_json)


@app.command(rich_help_panel="Files")
def verify(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A .press artifact, or a bundle: its folder or .zip.", show_default=False
        ),
    ],
    against: Annotated[
        Path | None, typer.Option(help="ONNX file whose weights must equal the decoded ones bit for bit.")
    ] = None,
    max_decoded: MaxDecoded = 2,
    as_json: AsJson = False,
) -> None:
    """Check an artifact: checksums, full decode, re-encoding, ONNX checker, ONNX Runtime. Needs no torch.

    A bundle: SHA-256 of every file, input and output, sample images; nothing in it is executed or unpacked in place.
    """
    from modelpress.toolkit.commands.bundle.making import is_bundle, verify_bundle
    from modelpress.toolkit.commands.files import verification

    if is_bundle(file):
        if against is not None:
            raise InputError("--against is for a .press file; a bundle is checked against its own manifest")
        steps = verify_bundle(file)
    else:
        steps = verification(file, against=against, max_decoded_bytes=max_decoded << 30)
    for step, finding in steps.items():
        _tell(f"ok  {step}: {finding}")
    emit_json({"file": str(file), "ok": True, "steps": steps}, as_json=as_json)


@app.command(rich_help_panel="Files")
def unpack(
    file: PressFile,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="[b]NAME.onnx[/]: the model with decoded weights; [b]NAME.npz[/]: integer codes, scales and offsets.",
            show_default="FILE with the suffix .onnx",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    levels: Annotated[
        bool,
        typer.Option(
            "--levels",
            help="Into the .npz only the quantized tensors, as the signed levels that are coded (0 = zero).",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    max_decoded: MaxDecoded = 2,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Decode an artifact into an ONNX model or NumPy arrays. Needs no torch."""
    from modelpress.toolkit.commands.files import unpack_file
    from modelpress.toolkit.output_folder import check_output_file

    target = output or Path(f"{file}.onnx" if not file.suffix else file).with_suffix(".onnx")
    check_output_file(target, overwrite=overwrite)
    size = unpack_file(file, target, levels=levels, max_decoded_bytes=max_decoded << 30)
    _tell(f"{target}: {size:,} bytes")
    emit_json({"output": str(target), "size_bytes": size}, as_json=as_json)


@app.command(rich_help_panel="Measurements")
def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS",
            help="results.json of one or several runs; the first is what the others are beside.",
        ),
    ],
    output: Path = output_file("HTML page, or Markdown tables with the suffix .md.", "report.html"),
    overwrite: Overwrite = False,
) -> None:
    """Draw results as one HTML file, or as Markdown tables; several runs side by side. Needs no torch."""
    from modelpress.benchmarks.records import read_results
    from modelpress.benchmarks.report.comparison import run_names
    from modelpress.benchmarks.report.page import write_report
    from modelpress.toolkit.output_folder import check_output_file

    check_output_file(output, overwrite=overwrite)
    names = run_names(results)
    write_report(output, [read_results(path) for path in results], names)
    _tell(f"{output}: {len(results)} run{'s' * (len(results) > 1)}")


def main() -> None:
    """Run the command line; errors that a user can mend are one line on stderr and exit code 1."""
    try:
        app(args=join_number_lists(sys.argv[1:]), prog_name="modelpress")
    except ModelpressError as error:
        for table in getattr(error, "__notes__", ()):  # what does not go into one line
            _tell(table)
        sys.exit(f"modelpress: error: {' '.join(str(error).split())}")
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:  # typer has turned the interrupt into this
            typer.echo("modelpress: stopped", err=True)
        raise
    except Interrupted as error:
        how = "with the same command" if sys.argv[1:2] == ["study"] else "with --resume"
        typer.echo(f"modelpress: {error}; continue {how}", err=True)
        sys.exit(_INTERRUPTED)


_INTERRUPTED = 130  # exit code, as of shells: 128 + SIGINT
_NUMBER_LISTS = ("--batch", "--threads")


def join_number_lists(arguments: Iterable[str]) -> list[str]:
    """Let `--batch` and `--threads` take several numbers: join those that follow with commas.

    Example:
        >>> join_number_lists(["bench", "a.onnx", "--batch", "1", "8", "--json"])
        ['bench', 'a.onnx', '--batch', '1,8', '--json']
    """
    joined: list[str] = []
    for argument in arguments:
        option = joined[-2] if len(joined) > 1 else ""
        in_list = option in _NUMBER_LISTS and joined[-1][:1].isdecimal()
        in_list = in_list or (
            bool(joined) and joined[-1].partition("=")[0] in _NUMBER_LISTS and "=" in joined[-1]
        )
        if in_list and argument.isdecimal():
            joined[-1] += f",{argument}"
        else:
            joined.append(argument)
    return joined


def _tell_training(result: "NetworkResult", output: Path, *, as_json: bool) -> None:
    accuracy = result.validation_top1
    _tell(f"{output}: " + ("no validation split" if accuracy is None else f"validation {accuracy:.2%}"))
    emit_json({"output": str(output), "validation_top1": accuracy, "epochs": result.epochs}, as_json=as_json)


def _pack_onnx(
    file: Path, output: Path, options: "WeightOptions", external: bool, effort: Effort, *, as_json: bool
) -> None:
    from dataclasses import asdict

    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.commands.packing import pack_onnx, show_packing

    report = pack_onnx(
        file, output, options, allow_external_data=external, effort=effort, progress=TerminalProgress()
    )
    show_packing(report)
    emit_json(asdict(report), as_json=as_json)


def _tell(text: str) -> None:
    typer.echo(text, err=True)


if __name__ == "__main__":
    main()
