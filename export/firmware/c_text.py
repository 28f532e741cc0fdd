"""Constants in C."""

from collections.abc import Iterable, Sequence

_WIDTH = 116


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
