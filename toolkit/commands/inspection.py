"""The `inspect` command."""

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import AsJson, MaxDecoded, PressFile, Wide

EXAMPLE = """
modelpress inspect model.press
modelpress inspect model.press --json
"""


def command(
    file: PressFile, max_decoded: MaxDecoded = 2, wide: Wide = False, as_json: AsJson = False
) -> None:
    """Show what an artifact holds and where its bytes are. Needs no torch."""
    from modelpress.toolkit.commands.files import show_inspection
    from modelpress.toolkit.model_files import inspecting

    facts = inspecting.inspection(file, max_decoded_bytes=max_decoded << 30)
    answer(facts, lambda: show_inspection(facts, wide=wide), as_json=as_json, beside_json=False)
