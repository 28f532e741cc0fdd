"""The `inspect` command."""

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import AsJson, MaxDecoded, PressFile

EXAMPLE = """
modelpress inspect model.press
modelpress inspect model.press --json
"""


def command(file: PressFile, max_decoded: MaxDecoded = 2, as_json: AsJson = False) -> None:
    """Show what an artifact holds and where its bytes are. Needs no torch."""
    from modelpress.toolkit.commands import files

    facts = files.inspection(file, max_decoded_bytes=max_decoded << 30)
    answer(facts, lambda: files.show_inspection(facts), as_json=as_json, beside_json=False)
