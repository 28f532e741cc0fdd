"""What a killed writer leaves is removed by the next one; what another is writing is not."""

import os
import subprocess
import sys
import textwrap

import pytest

from modelpress.export.errors import InputError
from modelpress.export.files import atomic_folder as folders
from modelpress.export.files.atomic import atomic_writer, write_atomically
from modelpress.export.files.atomic_folder import atomic_folder
from modelpress.export.files.places import check_not_around, check_not_read
from modelpress.export.files.temporaries import sweep, sweep_inside
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs locks and kills")
_KILLED = """
    import os, signal, sys
    from pathlib import Path
    from modelpress.export.files import atomic_folder as folders
    from modelpress.export.files.atomic import atomic_writer
    from modelpress.export.files.atomic_folder import atomic_folder

    path, way = Path(sys.argv[1]), sys.argv[2]
    if way == "file":
        with atomic_writer(path) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    with atomic_folder(path) as staged:
        (staged / "f").write_bytes(b"half")
        if way == "between two renames":
            folders._exchange = lambda one, other: False
            rename, seen = Path.rename, []
            def dying(self, target):
                if seen:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen.append(self)
                return rename(self, target)
            Path.rename = dying
        else:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(path, way):
    command = [sys.executable, "-c", textwrap.dedent(_KILLED), str(path), way]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_next_writer_removes_the_file_of_a_killed_one(tmp_path):
    killed(tmp_path / "out", "file")
    assert len(names(tmp_path)) == 1
    write_atomically(tmp_path / "another", b"")
    assert len(names(tmp_path)) == 2  # of another output
    write_atomically(tmp_path / "out", b"new")
    assert names(tmp_path) == ["another", "out"]


def test_the_next_writer_removes_the_folder_of_a_killed_one(tmp_path):
    killed(tmp_path / "out", "folder")
    assert len(names(tmp_path)) == 1
    with atomic_folder(tmp_path / "out") as staged:
        (staged / "f").write_bytes(b"new")
    assert names(tmp_path) == ["out"]


def test_a_folder_set_aside_by_a_killed_writer_is_put_back(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "f").write_bytes(b"old")
    killed(tmp_path / "out", "between two renames")
    assert not (tmp_path / "out").exists()
    sweep(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "f").read_bytes() == b"old"


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_folder_is_replaced_whole_with_and_without_the_one_step(tmp_path, monkeypatch, exchanged):
    if not exchanged:
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    for content in (b"old", b"new"):
        with atomic_folder(tmp_path / "out") as staged:
            (staged / content.decode()).write_bytes(content)
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["new"]


def test_what_is_being_written_is_not_swept(tmp_path):
    with atomic_writer(tmp_path / "f") as file, atomic_folder(tmp_path / "d") as staged:
        file.write(b"x")
        sweep_inside(tmp_path)
        assert len(names(tmp_path)) == 2
        (staged / "y").write_bytes(b"y")
    assert names(tmp_path) == ["d", "f"]


def test_files_of_others_that_only_look_alike_stay(tmp_path):
    (tmp_path / "mine").write_text("")
    for name in (".f.tmp", ".f.0123.tmp", "f.0123456789abcdef.tmp", ".g.0123456789abcdef.tmp"):
        (tmp_path / name).write_text("")
    (tmp_path / ".f.0123456789abcdef.tmp").symlink_to(tmp_path / "mine")
    before = names(tmp_path)
    sweep(tmp_path / "f")
    assert names(tmp_path) == before


def test_a_pipe_or_device_is_no_place_for_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(InputError, match="device, pipe or socket"):
            write_atomically(tmp_path / name, b"x")
    assert names(tmp_path) == ["link", "pipe"]
    try:
        os.mknod(tmp_path / "null", 0o666 | 0o020000, os.makedev(1, 3))
    except OSError:
        pytest.skip("nodes may not be made here")
    with pytest.raises(InputError, match="device, pipe or socket"):
        write_atomically(tmp_path / "null", b"x")


def test_nothing_is_written_over_what_is_read_whatever_its_name(tmp_path):
    (tmp_path / "folder").mkdir()
    source = tmp_path / "folder" / "in"
    source.write_text("")
    (tmp_path / "link").symlink_to(source)
    os.link(source, tmp_path / "hard")
    for output in (
        source,
        tmp_path / "link",
        tmp_path / "hard",
        tmp_path / "folder" / ".." / "folder" / "in",
    ):
        with pytest.raises(InputError, match="is what is read"):
            check_not_read(output, [source])
    with pytest.raises(InputError, match="is read and lies in"):
        check_not_around(tmp_path / "folder", source)
    check_not_around(tmp_path / "folder", tmp_path / "hard")
    check_not_read(tmp_path / "new", [source, tmp_path / "missing"])
