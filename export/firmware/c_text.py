"""Constants in C, and the texts around them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2

_WIDTH = 116
_TEMPLATES = Path(__file__).parent / "c"


def template(name: str) -> jinja2.Template:
    """One of the texts that a network is put into."""
    return jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True, autoescape=False
    ).from_string((_TEMPLATES / name).read_text())


def array(kind: str, name: str, items: Iterable[str]) -> str:
    """A constant array, its lines filled.

    Example:
        >>> print(array("uint8_t", "codes", ["1", "2"]))
        static const uint8_t codes[2] = {
            1, 2,
        };
    """
    found = list(items) or ["0"]  # C has no empty arrays
    return f"static const {kind} {name}[{len(found)}] = {{\n{_filled(found)}\n}};"


def commented_bytes(name: str, parts: Sequence[tuple[str, bytes]]) -> str:
    """One array of bytes in parts, what each is in front of it.

    Example:
        >>> print(commented_bytes("data", [("a", bytes([1, 2])), ("b", bytes([3]))]))
        static const uint8_t data[3] = {
            /* a */
            1, 2,
            /* b */
            3,
        };
    """
    size = sum(len(data) for _, data in parts)
    lines = "\n".join(f"    /* {what} */\n{_filled(list(map(str, data)))}" for what, data in parts)
    return f"static const uint8_t {name}[{size}] = {{\n{lines}\n}};"


def _filled(items: Sequence[str]) -> str:
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > _WIDTH:
            lines.append(line)
            line = "   "
        line += f" {item},"
    return "\n".join([*lines, line])


def byte_array(name: str, data: bytes) -> str:
    """Bytes, as decimal numbers."""
    return array("uint8_t", name, map(str, data))


def float_text(value: float) -> str:
    """A float32, exact.

    Example:
        >>> float_text(0.75)
        '0x1.8000000000000p-1f'
    """
    return f"{float(value).hex()}f"


def structure(kind: str, name: str, fields: dict[str, str]) -> str:
    """A constant structure, field by field."""
    lines = [f"    .{field} = {value}," for field, value in fields.items()]
    return f"static const {kind} {name} = {{\n" + "\n".join(lines) + "\n};"


def structures(kind: str, name: str, items: Sequence[dict[str, str]]) -> str:
    """An array of constant structures, a line of fields for each.

    Example:
        >>> print(structures("point", "points", [{"x": "1", "y": "2"}]))
        static const point points[1] = {
            {.x = 1, .y = 2},
        };
    """
    lines = [
        "    {" + ", ".join(f".{field} = {value}" for field, value in item.items()) + "}," for item in items
    ]
    return f"static const {kind} {name}[{len(items)}] = {{\n" + "\n".join(lines) + "\n};"
