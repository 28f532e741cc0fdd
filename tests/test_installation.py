"""What is built, and what it does once installed: without extras, and beside packages of our folders' names."""

import configparser
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import numpy as np
import pytest

from modelpress.export.onnx_flavours import write_onnx
from modelpress.export.press.writing import write_artifact
from tests.helpers.environments import (
    NAMESAKES,
    Environment,
    built,
    copied_sources,
    link,
    needed,
    without_extras,
)
from tests.helpers.models import small_model
from tests.helpers.paths import ROOT

QUICK = ("--batch", "1", "--threads", "1", "--rounds", "1")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return copied_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory):
    return built(sources, tmp_path_factory.mktemp("wheel"), "wheel")


def metadata_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def base_install(where, wheel):
    """The wheel and what it needs: no extra, so neither torch nor scikit-learn."""
    environment = Environment(where, wheel)
    for installed in needed(without_extras(metadata_of(wheel).get_all("Requires-Dist"))).values():
        link(installed, environment.site)

    return environment


@pytest.fixture(scope="module")
def from_wheel(wheel, tmp_path_factory):
    return base_install(tmp_path_factory.mktemp("from_wheel"), wheel)


@pytest.fixture(scope="module")
def editable(sources, tmp_path_factory):
    wheel = built(sources, tmp_path_factory.mktemp("editable_wheel"), "editable")
    return base_install(tmp_path_factory.mktemp("editable"), wheel)


@pytest.fixture(params=["from_wheel", "editable"])
def installed(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An artifact, an ONNX file and inputs."""
    folder = tmp_path_factory.mktemp("files")
    write_artifact(folder / "model.press", small_model())
    write_onnx(folder / "foreign.onnx", small_model(), flavour="float")
    np.save(folder / "inputs.npy", np.random.default_rng(0).random((4, 2, 6, 6), np.float32))
    return folder


def succeeded(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


# What is built


def test_the_wheel_holds_one_package_and_all_that_it_reads(wheel, sources):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {Path(name).parts[0] for name in names if ".dist-info/" not in name} == {"modelpress"}
    assert "modelpress/py.typed" in names
    assert "modelpress/export/press/FORMAT.md" in names

    for part in ("toolkit", "export", "benchmarks"):
        assert f"modelpress/{part}/__init__.py" in names
    for pattern in ("recipes/*.yaml", "export/**/*.j2", "benchmarks/report/**/*.j2"):
        found = {f"modelpress/{path.relative_to(sources)}" for path in sources.glob(pattern)}
        assert found
        assert found <= names


def test_every_module_is_in_the_wheel(wheel, sources):
    """Only comparisons with programs of others stay behind: they are run from a checkout."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {
        path for part in ("toolkit", "export", "benchmarks") for path in (sources / part).rglob("*.py")
    }
    absent = {
        path.relative_to(sources)
        for path in modules
        if f"modelpress/{path.relative_to(sources)}" not in names
    }
    assert {path.parts[:2] for path in absent} <= {("benchmarks", "peers")}


def test_the_command_is_installed(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        points = configparser.ConfigParser()
        points.read_string(archive.read(name).decode())
    assert list(points["console_scripts"]) == ["modelpress"]


def test_a_wheel_made_from_the_source_distribution_is_the_same(sources, wheel, tmp_path):
    sdist = built(sources, tmp_path, "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    again = built(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path, "wheel")

    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())
        for name in one.namelist():
            assert name.endswith("/RECORD") or one.read(name) == other.read(name), name


# One import name


def test_only_the_one_name_is_installed(installed, tmp_path):
    names = (*NAMESAKES, "src", "tests")
    script = f"""
import os; os.chdir({str(tmp_path)!r})
from importlib.util import find_spec
assert find_spec("modelpress") is not None
print([name for name in {names!r} if find_spec(name) is not None])
"""
    done = succeeded(installed.run("-P", "-c", script))
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["bench", "{folder}/model.press", "{folder}/foreign.onnx", *QUICK],
        ["bench", "scaling", "--weights", "20000", "--effort", "fast"],
    ],
)
def test_a_users_packages_of_our_folders_names_are_left_alone(installed, folder, arguments):
    """In the processes that measure, too."""
    succeeded(installed.modelpress(*(argument.format(folder=folder) for argument in arguments)))


def test_a_users_packages_of_our_folders_names_can_be_imported_beside_ours(installed):
    done = installed.run("-c", "import modelpress.export.errors\nimport export")
    assert "the package export of the user was imported" in done.stderr


def test_processes_are_started_in_one_place():
    """Where the user's folder is kept off the path."""
    started = {
        str(path.relative_to(ROOT))
        for part in ("toolkit", "export", "benchmarks")
        for path in (ROOT / part).rglob("*.py")
        if "[sys.executable" in path.read_text()
    }
    assert started == {"export/isolation/fresh.py"}


# Without extras


@pytest.mark.parametrize(
    "arguments",
    [
        ["pack", "{folder}/foreign.onnx", "-o", "{folder}/foreign.press", "--overwrite"],
        ["inspect", "{folder}/model.press"],
        ["verify", "{folder}/model.press"],
        ["unpack", "{folder}/model.press", "-o", "{folder}/unpacked.onnx", "--overwrite"],
        ["unpack", "{folder}/model.press", "-o", "{folder}/unpacked.npz", "--overwrite"],
        ["onnx", "{folder}/model.press", "-o", "{folder}/model.onnx", "--overwrite"],
        [
            *("onnx", "{folder}/model.press", "-o", "{folder}/model.onnx", "--overwrite"),
            *("--flavour", "int8-sparse", "--calibration-data", "{folder}/inputs.npy"),
        ],
        ["bench", "runtime"],
        ["bundle", "{folder}/model.press", "-o", "{folder}/handoff", "--overwrite"],
        ["study", "sparse-regression", "-o", "{folder}/study", "--overwrite"],
    ],
)
def test_commands_on_files_work_without_extras(from_wheel, folder, arguments):
    succeeded(from_wheel.modelpress(*(argument.format(folder=folder) for argument in arguments)))


def test_what_bench_measured_is_reported_without_extras(from_wheel, folder):
    results, page = folder / "results.json", folder / "report.html"
    succeeded(from_wheel.modelpress("bench", folder / "model.press", *QUICK, "-o", results))
    succeeded(from_wheel.modelpress("report", results, "-o", page))
    assert page.read_text().startswith("<!")


@pytest.mark.parametrize("package", ["torch", "sklearn"])
def test_the_base_installation_is_without_the_training_stack(from_wheel, package):
    done = from_wheel.run("-c", f"import {package}")
    assert "ModuleNotFoundError" in done.stderr


def test_training_commands_say_what_is_missing(from_wheel, tmp_path):
    done = from_wheel.modelpress("run", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "pip install 'modelpress[train]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
