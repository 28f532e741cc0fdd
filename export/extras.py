"""How to install what the light installation leaves out."""

from pathlib import Path

from modelpress.export import errors


def how_to_install(extra: str) -> str:
    """The command that adds an optional part, right for a checkout and for an installed package.

    Args:
        extra: ``train``, ``sweep``, ``images``, ``compare`` or ``all``.

    Example:
        >>> how_to_install("train") in ("pip install 'modelpress[train]'", "pip install -e '.[train]' in the checkout")
        True
    """
    if in_checkout(Path(errors.__file__)):
        return f"pip install -e '.[{extra}]' in the checkout"
    return f"pip install 'modelpress[{extra}]'"


def how_to_compile() -> str:
    """The command that builds the compiled codes, where the installation had no compiler."""
    if in_checkout(Path(errors.__file__)):
        return "with a C compiler, pip install -e . in the checkout compiles them"
    return "with a C compiler, pip install --force-reinstall --no-binary modelpress modelpress compiles them"


def in_checkout(module: Path) -> bool:
    """Whether a module of this package lies in a checkout: its project file is beside the folder `src`.

    Args:
        module: A file directly below ``modelpress/export``.
    """
    source = module.absolute().parents[2]  # not resolved: src/modelpress holds links
    return source.name == "src" and (source.parent / "pyproject.toml").is_file()
