"""Environments to install into, made offline from what runs the tests."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.helpers.paths import ROOT

SOURCES = (
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
    "src",
    "toolkit",
    "export",
    "benchmarks",
    "recipes",
)
NAMESAKES = ("benchmarks", "export", "toolkit", "recipes")


def copied_sources(folder: Path) -> Path:
    """What a build reads and nothing else, so that the checkout gets no build folders."""
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name,
                folder / name,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so", "*.pyd"),
            )
        else:
            shutil.copy(ROOT / name, folder / name)

    return folder


def built(sources: Path, folder: Path, kind: str) -> Path:
    """A ``wheel``, an ``editable`` wheel or an ``sdist``, by the build backend that pyproject.toml names."""
    script = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(folder)],
        cwd=sources,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    return folder / done.stdout.splitlines()[-1]


def without_extras(requirements: list[str] | None) -> list[Requirement]:
    """Those that apply here to an installation without extras."""
    parsed = [Requirement(text) for text in requirements or []]
    return [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]


def needed(requirements: list[Requirement]) -> dict[str, Distribution]:
    """The installed distributions that these need, their needs among them."""
    found: dict[str, Distribution] = {}
    waiting = list(requirements)
    while waiting:
        name = waiting.pop().name.lower().replace("_", "-")
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # what is needed and absent shows when it is imported
        waiting += without_extras(found[name].requires)

    return found


def link(installed: Distribution, folder: Path) -> None:
    """Link a distribution's packages and modules into a folder."""
    tops = {
        file.parts[0] for file in installed.files or [] if file.parts[0] not in {"..", "__pycache__", "bin"}
    }
    for top in tops:
        target = Path(str(installed.locate_file(top)))
        if target.exists() and not (folder / top).exists():
            (folder / top).symlink_to(target)


class Environment:
    """A bare virtual environment.

    Attributes:
        folder: Commands run here: a user's folder, whose packages are named as ours once were, and fail on import.
    """

    def __init__(self, where: Path, wheel: Path):
        venv.EnvBuilder(symlinks=True, with_pip=False).create(where / "venv")
        self.python = where / "venv" / "bin" / "python"
        self.site = Path(sysconfig.get_path("purelib", "venv", {"base": str(where / "venv")}))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(self.site)
        self.folder = where / "user"
        users_folder(self.folder)

    def run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run this environment's Python in the user's folder, which ``-m`` and ``-c`` put first on the path."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_"))}
        return subprocess.run(
            [self.python, "-W", "error", *map(str, arguments)],
            cwd=self.folder,
            env=kept,
            capture_output=True,
            text=True,
            check=False,
        )

    def modelpress(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run a command."""
        return self.run("-m", "modelpress", *arguments)


def users_folder(folder: Path) -> Path:
    """A folder with packages of a user's own that have our folders' names."""
    for name in NAMESAKES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(
            f"raise SystemExit('the package {name} of the user was imported')\n"
        )

    return folder
