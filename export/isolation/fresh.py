"""How a process of this project is started."""

import sys


def fresh_process(*arguments: str) -> list[str]:
    """The command that starts this interpreter without the working directory on its path.

    A user's folder may hold a ``random.py`` or a package named as one of ours: none of it is run.

    Example:
        >>> fresh_process("-m", "modelpress", "--help")[1:]
        ['-P', '-m', 'modelpress', '--help']
    """
    return [sys.executable, "-P", *arguments]
