"""Text from files of strangers, made safe for where it is shown: a terminal, Markdown, HTML.

Names, labels and metadata of a model are whatever its maker wrote: they may hold what moves a terminal's cursor, begins
a heading, runs a script or looks like a link. Everything that shows text sends it through here.
"""

import re

_MARKS = re.compile(
    r"[\\`*<|~@]"
    r"|\](?=[(\[:])"  # brackets alone make no link
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # inside a word it is a letter
    r"|&(?=#?\w+;)"
    r"|(?<=\w):(?=//)|(?<=www)\."  # addresses become links by themselves
)
_LINE_STARTS = re.compile(r"^(?:[#>]|[-+](?=[\s-]|$)|\d+(?=[.)](?:\s|$)))")
_ENTITIES = {"<": "&lt;", "&": "&amp;"}


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


_SPACES = "\u00a0\u202f"  # which break no line: typography, that Python counts as not printable


def for_terminal(text: str, *, lines: bool = False) -> str:
    """Without anything that a terminal obeys; invisible letters and those that turn the direction are shown as codes.

    Args:
        text: From anywhere.
        lines: Whether it may have several lines.

    Example:
        >>> for_terminal("a\\nb\\x1b[2J"), for_terminal("a\\nb", lines=True)
        ('a\\\\nb\\\\x1b[2J', 'a\\nb')
    """
    if text.isprintable():
        return text
    kept = _SPACES + "\n" if lines else _SPACES
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


def for_markdown(text: object) -> Markdown:
    """One line of Markdown that shows the text as it is: no markup, no HTML, no links, no end of a table's cell.

    Example:
        >>> for_markdown("# <script>"), for_markdown("layer1_0.conv"), for_markdown("[a](javascript:b)")
        ('\\\\# &lt;script>', 'layer1_0.conv', '[a\\\\](javascript:b)')
    """
    if isinstance(text, Markdown):
        return text
    line = for_terminal(" ".join(str(text).split()))
    marked = _MARKS.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), line)
    return Markdown(_LINE_STARTS.sub(_marked_start, marked))


def _marked_start(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"


def markdown_code(text: object) -> Markdown:
    """A code span that shows the text as it is, whatever it holds.

    Example:
        >>> markdown_code("a"), markdown_code("a`b"), markdown_code("")
        ('`a`', '`` a`b ``', '` `')
    """
    line = for_terminal(" ".join(str(text).split())) or " "
    longest = max(map(len, re.findall("`+", line)), default=0)
    space = " " if longest else ""
    return Markdown(f"{'`' * (longest + 1)}{space}{line}{space}{'`' * (longest + 1)}")


def for_html(text: object) -> object:
    """For a template that escapes markup itself: text without control letters; lines stay."""
    return for_terminal(text, lines=True) if type(text) is str else text
