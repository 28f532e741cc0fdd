"""Tables as lines of text that fit the terminal: fewer columns first, then shorter names, no cell over two lines."""

import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from modelpress.export.safe_text import for_terminal

Row = dict[str, str]
Headings = dict[str, str]  # key of a row -> title of its column, from left to right

_GAP = "  "
_SHORTEST = 12  # columns of a shortened name: less says nothing
_ELLIPSIS = "…"


def terminal_width() -> int:
    """Columns of the terminal; ``COLUMNS`` where that is set, 80 where stdout is no terminal."""
    return shutil.get_terminal_size((80, 24)).columns


def shortened(text: str, width: int) -> str:
    """A text with its middle left out: beginnings and ends of names tell them apart.

    Example:
        >>> shortened("body_op.0.conv1.0.conv.weight", 17)
        'body_op.…v.weight'
        >>> shortened("short", 17)
        'short'
    """
    if cell_len(text) <= width:
        return text
    kept = max(width - 1, 1)
    front, back = kept - kept // 2, kept // 2

    # letters of two columns: take away until it fits
    short = text[:front] + _ELLIPSIS + text[len(text) - back :]
    while cell_len(short) > width and front > 0:
        front -= 1
        short = text[:front] + _ELLIPSIS + text[len(text) - back :]
    return short


@dataclass(frozen=True)
class Layout:
    """Which columns are shown, and how wide they are.

    Attributes:
        lines: The heading, then a line for every row.
        left_out: Titles of the columns that did not fit.
    """

    lines: list[str]
    left_out: list[str]


def lay_out(
    rows: Iterable[Row],
    headings: Sequence[Headings],
    *,
    text: Collection[str] = (),
    width: int | None,
) -> Layout:
    """Choose columns and make lines.

    Args:
        rows: Cells by key.
        headings: Choices of columns, from the fullest to the barest; the first that fits is taken, else the last, with
            names shortened.
        text: Keys of columns that hold words, besides the first one: aligned to the left, and shortened if need be.
        width: Columns of the terminal; None for no limit.

    Example:
        >>> rows = [{"name": "conv1.weight", "bits": "4", "shape": "16x3x3x3"}]
        >>> full = {"name": "name", "bits": "bits", "shape": "shape"}
        >>> lay_out(rows, [full, {"name": "name", "bits": "bits"}], width=20)
        Layout(lines=['name          bits', 'conv1.weight     4'], left_out=['shape'])
    """
    cells = [{key: for_terminal(value) for key, value in row.items()} for row in rows]
    chosen = next((c for c in headings if width is None or _total(_widths(cells, c)) <= width), headings[-1])

    widths = _widths(cells, chosen)
    words = {next(iter(chosen)), *text}
    if width is not None:
        _shrink(widths, words & set(chosen), width)

    lines = [
        _line(row, widths, words) for row in ({key: for_terminal(t) for key, t in chosen.items()}, *cells)
    ]
    left_out = [title for key, title in headings[0].items() if key not in chosen and title]
    return Layout(lines, left_out)


def _widths(rows: Sequence[Row], headings: Headings) -> dict[str, int]:
    """What every column needs to show all of its cells."""
    return {
        key: max([cell_len(title), *(cell_len(row[key]) for row in rows)]) for key, title in headings.items()
    }


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1)


def _shrink(widths: dict[str, int], words: Collection[str], width: int) -> None:
    """Take columns of words down, the widest first, until the table fits or nothing is left to take."""
    while _total(widths) > width:
        widest = max(words, key=lambda key: widths[key])
        if widths[widest] <= _SHORTEST:
            return
        widths[widest] -= 1


def _line(row: Row, widths: dict[str, int], words: Collection[str]) -> str:
    cells = []
    for key, width in widths.items():
        cell = shortened(row[key], width)
        space = " " * (width - cell_len(cell))
        cells.append(cell + space if key in words else space + cell)
    return _GAP.join(cells).rstrip()
