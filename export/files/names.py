"""What files are called in records that are handed over: as little of their paths as tells them apart."""

from collections.abc import Sequence
from pathlib import Path


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Names of files, each with as many of its folders as it takes to tell all apart; never a whole absolute path.

    Example:
        >>> distinct_names([Path("/home/me/a/m.press"), Path("/home/me/b/m.press")])
        ['a/m.press', 'b/m.press']
        >>> distinct_names([Path("/home/me/m.press"), Path("n.press")])
        ['m.press', 'n.press']
    """
    parts = [path.parts[path.is_absolute() :] or (str(path),) for path in paths]
    for n in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(own[-n:]) for own in parts]
        if len(set(names)) == len(names):
            return names

    # spelt alike from different starts
    return [f"{path.name} ({k})" for k, path in enumerate(paths, 1)]
