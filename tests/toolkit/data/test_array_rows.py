import tracemalloc
import zipfile

import numpy as np
import pytest

from modelpress.export.errors import InputError
from modelpress.toolkit.data import array_rows
from modelpress.toolkit.data.array_rows import MAX_UNPACKED_BYTES, read_rows
from modelpress.toolkit.data.calibration_data import load_calibration


def zipped_zeros(path, n_rows, row_bytes, name="images.npy", method=zipfile.ZIP_DEFLATED):
    """An archive of one array of zeros, made in the memory of a block."""
    with zipfile.ZipFile(path, "w", method) as archive, archive.open(name, "w", force_zip64=True) as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (n_rows, 3, row_bytes // 3, 1)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(n_rows * row_bytes >> 20):
            file.write(bytes(1 << 20))
    return path


METADATA = {"modelpress.input": '{"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}'}


def test_a_small_archive_of_a_large_array_takes_the_memory_of_what_is_used(tmp_path):
    path = zipped_zeros(tmp_path / "x.npz", n_rows=64, row_bytes=3 << 20)  # 192 MB in 200 kB
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        found = load_calibration(path, n_images=2, metadata=METADATA)
        assert tracemalloc.get_traced_memory()[1] < 90 << 20  # two rows as float32 are 25 MB
    finally:
        tracemalloc.stop()
    assert found.shape == (2, 3, 1 << 20, 1)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("block", [1, 100, 1 << 20])
def test_rows_are_those_that_indexing_gives(tmp_path, monkeypatch, order, suffix, block):
    monkeypatch.setattr(array_rows, "_BLOCK_BYTES", block)
    array = np.asarray(np.random.default_rng(0).standard_normal((23, 3, 2)), np.float32, order=order)
    path = tmp_path / f"x.{suffix}"
    np.save(path, array) if suffix == "npy" else np.savez_compressed(path, array)
    for wanted in ([0], [22], [3, 4, 11], list(range(23))):
        np.testing.assert_array_equal(read_rows(path, lambda n, w=wanted: np.array(w)), array[wanted])


def test_more_than_is_taken_is_refused_by_what_the_header_says(tmp_path, monkeypatch):
    path = zipped_zeros(tmp_path / "x.npz", n_rows=8, row_bytes=3 << 20)
    with monkeypatch.context() as patch:
        patch.setattr(array_rows, "MAX_UNPACKED_BYTES", 23 << 20)
        with pytest.raises(InputError, match=r"x\.npz: holds 25,165,824 bytes"):
            load_calibration(path, n_images=1, metadata=METADATA)
    monkeypatch.setattr(array_rows, "MAX_KEPT_BYTES", 30 << 20)
    assert len(load_calibration(path, n_images=2, metadata=METADATA)) == 2
    with pytest.raises(InputError, match="3 inputs of shape .* take 37,748,736 bytes"):
        load_calibration(path, n_images=3, metadata=METADATA)
    assert MAX_UNPACKED_BYTES == 4 << 30


def test_a_method_that_may_need_any_memory_is_refused(tmp_path):
    path = zipped_zeros(tmp_path / "x.npz", n_rows=2, row_bytes=3 << 20, method=zipfile.ZIP_LZMA)
    with pytest.raises(InputError, match="not compressed by deflate"):
        load_calibration(path, metadata=METADATA)
