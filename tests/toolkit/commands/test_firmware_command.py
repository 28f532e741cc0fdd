import json
import shutil
import subprocess

import numpy as np
import pytest

from modelpress.benchmarks.measures.firmware import FirmwareFolder, missing_for_cores
from modelpress.export.errors import InputError
from modelpress.export.press.writing import write_artifact
from tests.export.firmware.test_operators import dense
from tests.helpers.command_line import modelpress, one_line
from tests.helpers.firmware import Layers
from tests.helpers.int8_chain import images_for


@pytest.fixture
def artifact(tmp_path):
    model = dense(Layers())
    write_artifact(tmp_path / "model.press", model)
    np.save(tmp_path / "inputs.npy", images_for(model))
    return tmp_path / "model.press"


def test_command_writes_a_folder_whose_test_passes(artifact, tmp_path, monkeypatch, capsys):
    arguments = [
        "firmware",
        artifact,
        "--calibration-data",
        tmp_path / "inputs.npy",
        "-o",
        tmp_path / "fw",
        "--json",
    ]
    assert modelpress(monkeypatch, *arguments) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["products_run"] < facts["products"]
    assert facts["weight_bytes"] < facts["elsewhere"]["int8"] < facts["elsewhere"]["float32"]
    assert json.loads((tmp_path / "fw" / "report.json").read_text())["layers"] == facts["layers"]

    assert modelpress(monkeypatch, *arguments) == 1
    assert "is not empty; pass --overwrite" in one_line(capsys.readouterr().err)
    assert modelpress(monkeypatch, *arguments, "--overwrite") == 0

    if shutil.which("make") is None or shutil.which("cc") is None:
        pytest.skip("needs make and cc")
    done = subprocess.run(
        ["make", "-s", "-C", tmp_path / "fw", "test"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.count("ok: ")) == (0, 4), done.stderr


def test_missing_calibration_data_is_one_line(artifact, tmp_path, monkeypatch, capsys):
    assert modelpress(monkeypatch, "firmware", artifact, "-o", tmp_path / "fw") == 1
    assert "needs calibration data" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "fw").exists()


def test_bundle_holds_firmware_for_a_target(artifact, tmp_path, monkeypatch, capsys):
    arguments = ["bundle", artifact, "--target", "cortex-m4", "--no-zip", "-o", tmp_path / "handoff"]
    assert modelpress(monkeypatch, *arguments) == 1
    assert "needs calibration data" in one_line(capsys.readouterr().err.splitlines()[-1])
    assert not (tmp_path / "handoff").exists()

    assert modelpress(monkeypatch, *arguments, "--calibration-data", tmp_path / "inputs.npy") == 0
    makefile = (tmp_path / "handoff" / "firmware" / "Makefile").read_text()
    assert "\nall: cortex-m4\n" in makefile
    assert "firmware/model.c" in (tmp_path / "handoff" / "SHA256SUMS").read_text()
    assert modelpress(monkeypatch, "verify", tmp_path / "handoff") == 0


def test_bench_firmware_measures_what_it_can(artifact, tmp_path, monkeypatch, capsys):
    inputs = ["--calibration-data", tmp_path / "inputs.npy"]
    assert modelpress(monkeypatch, "firmware", artifact, *inputs, "-o", tmp_path / "fw") == 0
    capsys.readouterr()
    monkeypatch.setattr("modelpress.benchmarks.measures.firmware.CORES", {"cortex-m4": 40.0})
    assert modelpress(monkeypatch, "bench", "firmware", tmp_path / "fw", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["firmware"].values()
    for core in found["cores"].values():
        assert core is None or (
            core["equal"] == core["images"] == 4 and core["memory"] > found["arena_bytes"]
        )
    host = found["host_instructions"]
    assert host is None or host > found["products_run"]


def test_bench_firmware_wants_firmware(tmp_path, monkeypatch, capsys):
    assert modelpress(monkeypatch, "bench", "firmware", tmp_path) == 1
    assert "is no folder that `modelpress firmware` wrote" in one_line(capsys.readouterr().err)
    assert modelpress(monkeypatch, "bench", "firmware") == 2


def test_a_missing_program_is_named(artifact, tmp_path, monkeypatch, capsys):
    inputs = ["--calibration-data", tmp_path / "inputs.npy"]
    assert modelpress(monkeypatch, "firmware", artifact, *inputs, "-o", tmp_path / "fw") == 0
    capsys.readouterr()
    monkeypatch.setenv("PATH", str(tmp_path))

    assert modelpress(monkeypatch, "bench", "firmware", tmp_path / "fw", "--json") == 0
    said = capsys.readouterr()
    assert "not installed, so not all is measured: make, cc, valgrind, arm-none-eabi-gcc" in said.err
    (found,) = json.loads(said.out)["firmware"].values()
    assert (found["cores"], found["host_instructions"]) == ({"cortex-m4": None, "cortex-m55": None}, None)

    firmware = FirmwareFolder(tmp_path / "fw", tmp_path / "build")
    with pytest.raises(InputError, match="make is not installed"):
        firmware.values(np.zeros((1, firmware.input.size), np.uint8))


def test_a_compiler_without_a_c_library_is_no_fault_of_the_network(tmp_path, monkeypatch):
    for program in ("make", "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"):
        (tmp_path / program).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert missing_for_cores() == ["libnewlib-dev"]
