"""What `bench FILE…` reads from its options."""

from collections.abc import Iterable
from pathlib import Path

from modelpress.export.errors import CommandLineError


def parse_inputs(texts: Iterable[str]) -> dict[str, Path]:
    """Split every ``NAME=FILE.npy``; a name may hold colons and slashes, as those of other tools do.

    Raises:
        CommandLineError: There is no equals sign, or a name is given twice.

    Example:
        >>> {name: path.name for name, path in parse_inputs(["input_ids:0=ids.npy"]).items()}
        {'input_ids:0': 'ids.npy'}
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise CommandLineError(
                f"--input {text!r}: expected NAME=FILE.npy, as in --input images=batch.npy"
            )
        if name in found:
            raise CommandLineError(f"--input {name}=… is given twice; give one array for each input")
        found[name] = Path(file)
    return found
