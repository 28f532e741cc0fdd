"""The `bench coding` command."""

from typing import Annotated

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import (
    MEASUREMENT,
    AsJson,
    JsonFile,
    Overwrite,
    PressFile,
    Rounds,
)

EXAMPLE = """
modelpress bench coding model.press -o coding.json
"""


def command(
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
    """Speed of the codes beside zstandard, and of loading into ONNX Runtime. Needs no torch.

    The codes are Huffman's and mixed contexts.
    """
    from modelpress.toolkit.commands.bench.codes import measure_coding, show_coding
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_output_file, write_json

    if output is not None:
        check_output_file(output, overwrite=overwrite)

    facts = measure_coding(path, n_symbols=symbols, rounds=rounds, progress=TerminalProgress())
    answer(facts, lambda: show_coding(facts), as_json=as_json)
    if output is not None:
        write_json(output, facts)
