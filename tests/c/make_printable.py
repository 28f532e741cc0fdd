"""Writes which characters are printable, for the C reader, from Python's own tables.

python -m tests.c.make_printable
"""

import unicodedata

from modelpress.export.coding.varint import pack_varint
from tests.helpers.paths import ROOT

N_CHARACTERS = 0x110000


def runs() -> list[int]:
    """Lengths of runs of characters that are not printable, that are, and so on, from U+0000."""
    edges = [0]
    for character in range(1, N_CHARACTERS):
        if chr(character).isprintable() != chr(character - 1).isprintable():
            edges.append(character)
    return [end - start for start, end in zip(edges, [*edges[1:], N_CHARACTERS], strict=True)]


def main() -> None:
    data = b"".join(map(pack_varint, runs()))
    lines = [", ".join(map(str, data[start : start + 24])) for start in range(0, len(data), 24)]
    body = ",\n    ".join(lines)
    (ROOT / "export" / "press" / "c" / "press_printable.h").write_text(
        f"/* Written by tests/c/make_printable.py from Unicode {unicodedata.unidata_version}: lengths of runs of"
        " characters, varints;\n   not printable, printable, and so on, from U+0000. */\n\n"
        f"static const uint8_t press_printable[{len(data)}] = {{\n    {body},\n}};\n"
    )


if __name__ == "__main__":
    main()
