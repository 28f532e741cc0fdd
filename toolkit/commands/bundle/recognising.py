"""Whether a path is meant as a bundle; loads nothing, so that checking an artifact does not load what bundles need."""

from pathlib import Path


def is_bundle(path: Path) -> bool:
    """Whether a path given to `verify` means a bundle: a folder or a `.zip`."""
    return path.suffix.lower() == ".zip" or (exists(path) and path.is_dir())


def exists(path: Path) -> bool:
    """Whether there is something; false for what no file can be called.

    Example:
        >>> exists(Path("/")), exists(Path("n" * 300))
        (True, False)
    """
    try:
        return path.exists()
    except OSError:  # too long a name, for one
        return False
