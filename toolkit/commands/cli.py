"""The command line: a table of commands, each imported when it is called, so that `--help` answers at once."""

import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from modelpress.export.errors import CommandLineError, ModelpressError
from modelpress.toolkit.commands.lazy import MARKUP, Entry, example, lazy_group
from modelpress.toolkit.commands.saying import say, say_line
from modelpress.toolkit.commands.verbosity import VERBOSITY
from modelpress.toolkit.training.interrupt import Interrupted

_CHAIN, _STAGES, _FILES, _MEASUREMENTS = "The whole chain", "Stage by stage", "Files", "Measurements"

COMMANDS = {
    "run": Entry("stages.run", "Load, prune, quantize, finetune, pack, emit ONNX, measure, report.", _CHAIN),
    "train": Entry("stages.train", "Train the recipe's dense network.", _STAGES),
    "prune": Entry(
        "stages.prune", "Remove the weights closest to zero, at once or by a penalty while training.", _STAGES
    ),
    "sensitivity": Entry(
        "stages.sensitivity",
        "Measure what each layer loses in each bit width, and propose widths that keep a budget of bytes.",
        _STAGES,
    ),
    "quantize": Entry(
        "stages.quantize", "Quantize a network and finetune it on its grid, zeros held.", _STAGES
    ),
    "pack": Entry("stages.pack", "Write the artifact of a network, or of any ONNX model.", _STAGES),
    "onnx": Entry(
        "stages.onnx_model",
        "Write a checked ONNX model from an artifact, or the plain form of a small one.",
        _STAGES,
    ),
    "inspect": Entry("inspection", "Show what an artifact holds and where its bytes are.", _FILES),
    "verify": Entry(
        "verify",
        "Check an artifact: checksums, full decode, re-encoding, ONNX checker, ONNX Runtime.",
        _FILES,
    ),
    "unpack": Entry("unpack", "Decode an artifact into an ONNX model or NumPy arrays.", _FILES),
    "bundle": Entry(
        "bundle.bundle_command",
        "Write the folder (and .zip) that deployment gets: model, runner, checks, measured claims.",
        _FILES,
    ),
    "firmware": Entry(
        "firmware.firmware_command",
        "Write the network in C99 for microcontrollers: weights coded in flash, zeros skipped.",
        _FILES,
    ),
    "bench": Entry(
        "bench.group",
        "Measure files: size, sparsity, accuracy, latency; sizes in every form; speed of the coding.",
        _MEASUREMENTS,
    ),
    "study": Entry("study.group", "Run a whole series of experiments.", _MEASUREMENTS),
    "sweep": Entry(
        "sweep.sweep_command",
        "Search recipes: Optuna chooses trials, Ray places them on one machine or on many.",
        _MEASUREMENTS,
    ),
    "report": Entry("report", "Draw results as one HTML file, or as Markdown tables.", _MEASUREMENTS),
}

app = typer.Typer(
    name="modelpress",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    context_settings={"help_option_names": ["-h", "--help"]},
    cls=lazy_group(COMMANDS),
    epilog=example(
        "modelpress run -o runs/digits\nmodelpress pack model.onnx -o model.press\nmodelpress COMMAND --help"
    )
    + "\n\n[b]Exit codes[/]\n\n0 nothing failed, 1 something failed, 2 the command line is wrong, "
    "3 not all was checked (--strict), 130 stopped",
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version, and whether the codes are compiled, and exit."),
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Tell errors only, and the answer.")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Tell the seconds of each step, and where an error arose.")
    ] = False,
) -> None:
    """Make trained networks small and hand them over ready to run.

    Sizes are those of files that decode bit-exactly; accuracy and latency are measured in ONNX Runtime.
    """
    VERBOSITY.ask(quiet=quiet, verbose=verbose)
    if version:
        from importlib.metadata import version as installed

        from modelpress.export.coding.core import way_in_use

        say(f"modelpress {installed('modelpress')}, {way_in_use()}")
        raise typer.Exit


_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130  # exit codes; the last as of shells: 128 + SIGINT


def main() -> None:
    """Run the command line; errors that a user can mend are one line on stderr.

    Exit codes: 0 nothing failed, 1 something failed, 2 the command line is wrong, 3 not all was checked
    (`--strict`), 130 stopped.
    """
    VERBOSITY.reset()
    try:
        app(args=join_number_lists(sys.argv[1:]), prog_name="modelpress")
    except ModelpressError as error:
        if VERBOSITY.verbose:
            import traceback

            say(traceback.format_exc(), err=True, end="")  # with the notes
        else:
            for note in getattr(error, "__notes__", ()):  # what does not go into one line
                say(note, err=True)

        say_line(f"modelpress: error: {' '.join(str(error).split())}", err=True)
        sys.exit(_USAGE if isinstance(error, CommandLineError) else _FAILED)
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:  # typer has turned the interrupt into this
            say("modelpress: stopped", err=True)
        raise
    except Interrupted as error:
        # -q or -v may come first
        how = "with the same command" if {"study", "sweep"} & set(sys.argv[1:3]) else "with --resume"
        say_line(f"modelpress: {error}; continue {how}", err=True)
        sys.exit(_INTERRUPTED)


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


if __name__ == "__main__":
    main()
