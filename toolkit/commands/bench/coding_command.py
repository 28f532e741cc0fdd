"""The `bench coding` command."""

from typing import Annotated

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import (
    MEASUREMENT,
    AsJson,
    JsonFile,
    MaxDecoded,
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
    max_decoded: MaxDecoded = 2,
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

    facts = measure_coding(
        path,
        n_symbols=symbols,
        rounds=rounds,
        progress=TerminalProgress(),
        max_decoded_bytes=max_decoded << 30,
    )
    answer(facts, lambda: show_coding(facts), as_json=as_json)
    if output is not None:
        write_json(output, facts)
