"""A whole file or nothing."""

import stat
from pathlib import Path

import pytest

from modelpress.export.errors import InputError, ModelError
from modelpress.export.files.atomic import atomic_writer, write_atomically


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "f"
    with atomic_writer(path) as file:
        file.write(b"hello ")
        file.seek(0)
        assert file.read() == b"hello "
        file.write(b"world")
        file.flush()
        assert Path(file.name).read_bytes() == b"hello world"
        assert Path(file.name).parent == tmp_path
        assert not path.exists()
    assert path.read_bytes() == b"hello world"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error", [ModelError("x"), KeyboardInterrupt(), OSError(28, "No space left on device")]
)
def test_whatever_ends_the_block_early_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    expected = InputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), atomic_writer(path) as file:  # noqa: PT012 - the block is what is tested
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_meet(tmp_path):
    with atomic_writer(tmp_path / "f") as one, atomic_writer(tmp_path / "f") as two:
        one.write(b"one")
        two.write(b"two")
    assert (tmp_path / "f").read_bytes() == b"one"  # the block that ended last
    assert len(list(tmp_path.iterdir())) == 1


def test_permissions_are_those_of_any_new_file(tmp_path):
    write_atomically(tmp_path / "f", b"")
    (tmp_path / "g").touch()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "fg"}
    assert len(modes) == 1


def test_a_folder_in_the_way_is_an_input_error(tmp_path):
    (tmp_path / "f").mkdir()
    with pytest.raises(InputError, match="f: cannot be written"):
        write_atomically(tmp_path / "f", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
