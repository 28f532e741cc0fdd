"""Where commands write: never over what they read, never in place of a device, and nothing left when they are ended."""

import os
import signal

import pytest

from modelpress.export.files.atomic import atomic_writer
from modelpress.export.onnx_flavours import write_onnx
from modelpress.export.press.writing import write_artifact
from modelpress.toolkit.commands.bundle import claims as bundle_claims
from modelpress.toolkit.model_files import onnx_writing
from tests.helpers.command_line import one_line
from tests.helpers.models import small_model


@pytest.fixture
def press(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_claims, "ROUNDS", 1)
    write_artifact(tmp_path / "model.press", small_model())
    return tmp_path / "model.press"


def calls(press):
    """Command lines that lack their output."""
    onnx = press.with_suffix(".onnx")
    write_onnx(onnx, small_model(), flavour="float")
    return {
        "pack": ("pack", onnx),
        "onnx": ("onnx", press),
        "unpack": ("unpack", press),
        "bench": ("bench", press),
        "bundle": ("bundle", press, "--no-zip"),
        "report": ("report", press),
    }


@pytest.mark.parametrize("command", ["pack", "onnx", "unpack", "bench", "bundle", "report"])
def test_a_pipe_is_no_output_and_stays(press, call, command):
    output = press.with_name("pipe.onnx" if command in {"onnx", "unpack"} else "pipe.press")
    os.mkfifo(output)
    code, _, err = call(*calls(press)[command], "-o", output, "--overwrite")
    assert code == 1
    assert "device, pipe or socket" in one_line(err) or "no folder" in one_line(err)
    assert output.is_fifo()


@pytest.mark.parametrize("command", ["pack", "onnx", "unpack", "bench", "bundle", "report"])
def test_the_input_is_no_output(press, call, command):
    arguments = calls(press)[command]
    before = arguments[1].read_bytes()
    code, _, err = call(*arguments, "-o", arguments[1], "--overwrite")
    assert code == 1
    assert "is what is read" in one_line(err)
    assert arguments[1].read_bytes() == before


def test_an_artifact_is_not_lost_with_the_bundle_that_it_lies_in(press, call):
    target = press.parent / "handoff"
    assert call("bundle", press, "-o", target, "--no-zip")[0] == 0
    code, _, err = call("bundle", target / "model.press", "-o", target, "--no-zip", "--overwrite")
    assert code == 1
    assert "lies in" in one_line(err)
    assert (target / "model.press").is_file()


def test_the_decoded_model_is_not_written_over_an_artifact_that_ends_like_one(press, call):
    disguised = press.rename(press.with_name("packed.onnx"))
    code, _, err = call("unpack", disguised, "--overwrite")
    assert code == 1
    assert "is what is read" in one_line(err)


@pytest.fixture
def interruptible():
    """As in a terminal: shells start what runs in the background deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_ended_leaves_the_old_file_and_nothing_else(press, call, monkeypatch, number):
    output = press.with_name("out.onnx")
    output.write_bytes(b"old")

    def ended(path, emission):
        with atomic_writer(path) as file:
            file.write(b"half")
            os.kill(os.getpid(), number)

    monkeypatch.setattr(onnx_writing, "write_emission", ended)
    handler = signal.getsignal(signal.SIGTERM)
    code, _, err = call("onnx", press, "-o", output, "--overwrite")
    assert (code, err.splitlines()[-1]) == (130, "modelpress: stopped")
    assert output.read_bytes() == b"old"
    assert sorted(path.name for path in press.parent.iterdir()) == ["model.press", "out.onnx"]
    assert signal.getsignal(signal.SIGTERM) == handler
