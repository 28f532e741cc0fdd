"""Lists of numbers on the command line."""

from modelpress.export.errors import CommandLineError


def numbers(option: str, text: str) -> tuple[int, ...]:
    """The positive whole numbers in a text, with blanks or commas between them.

    Raises:
        CommandLineError: There are none, or something else is among them.

    Example:
        >>> numbers("--batch", "1 8,64")
        (1, 8, 64)
    """
    parts = text.replace(",", " ").split()
    if not parts or not all(part.isdecimal() and len(part) < 10 and int(part) > 0 for part in parts):
        raise CommandLineError(
            f"{option} is {text!r}; expected positive whole numbers, as in {option} 1 8 64"
        )
    return tuple(int(part) for part in parts)
