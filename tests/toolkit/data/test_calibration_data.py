import io
import json
import zipfile

import numpy as np
import pytest

from modelpress.export.errors import InputError
from modelpress.toolkit.data.calibration_data import load_calibration
from modelpress.toolkit.data.cifar10 import MEAN, STD, load_cifar10
from modelpress.toolkit.data.data_set import normalised

METADATA = {"modelpress.input": json.dumps({"mean": MEAN, "std": STD}), "modelpress.dataset": "cifar10"}
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 3, 5, 4), np.uint8)


def write_cifar10(folder, n=20):
    """A small data set in the format of CIFAR-10; test images are all 255."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        records = rng.integers(0, 200, (n, 3073), np.uint8)
        records[:, 0] %= 10
        if name == "test_batch":
            records[:, 1:] = 255
        records.tofile(folder / f"{name}.bin")
    return folder


def test_float_inputs_are_taken_as_they_are(tmp_path):
    inputs = np.random.default_rng(2).standard_normal((6, 3, 5, 4)).astype(np.float32)
    np.save(tmp_path / "inputs.npy", inputs)
    found = load_calibration(tmp_path / "inputs.npy", metadata={})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, inputs)


@pytest.mark.parametrize("layout", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_pixels_of_either_layout_are_normalised(tmp_path, layout):
    np.savez(tmp_path / "images.npz", images=PIXELS.transpose(layout), labels=np.arange(7))
    found = load_calibration(tmp_path / "images.npz", metadata=METADATA)
    np.testing.assert_array_equal(found, normalised(PIXELS, MEAN, STD))


def test_the_choice_is_seeded_and_keeps_the_order(tmp_path):
    inputs = np.arange(1000, dtype=np.float32).reshape(500, 2)
    np.save(tmp_path / "inputs.npy", inputs)
    first, again = (load_calibration(tmp_path / "inputs.npy", n_images=50, metadata={}) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(set(first[:, 0])) == 50
    assert (np.diff(first[:, 0]) > 0).all()


def test_training_images_only_are_taken_from_a_data_set(tmp_path):
    folder = write_cifar10(tmp_path / "cifar-10-batches-bin")
    for found in (
        load_calibration(folder, n_images=30, metadata=METADATA),
        load_calibration(None, data_dir=str(tmp_path), n_images=30, metadata=METADATA),
        load_calibration(None, data_dir=str(tmp_path), dataset="cifar10", n_images=30, metadata={}),
    ):
        assert found.shape == (30, 3, 32, 32)
        assert found.max() < normalised(np.full((1, 3, 1, 1), 200, np.uint8), MEAN, STD).max()


def test_real_training_images_give_the_same_inputs_as_training(cifar10_folder):
    found = load_calibration(cifar10_folder, n_images=5, metadata=METADATA)
    everything = load_cifar10(str(cifar10_folder)).train.images
    index = np.sort(np.random.default_rng(0).choice(len(everything), 5, replace=False))
    np.testing.assert_array_equal(found, normalised(everything[index], MEAN, STD))


def test_numbers_of_words_stay_what_they_are(tmp_path):
    ids = np.random.default_rng(0).integers(0, 60, (9, 5))
    np.save(tmp_path / "ids.npy", ids)
    found = load_calibration(tmp_path / "ids.npy", n_images=4, metadata={})
    assert found.dtype == np.int64
    assert found.shape == (4, 5)
    assert all(row.tolist() in ids.tolist() for row in found)


# Refusals


@pytest.mark.parametrize(
    ("array", "metadata", "message"),
    [
        (PIXELS.astype(np.float64), METADATA, r"type float64; expected float32.*astype"),
        (PIXELS.astype(np.int64), METADATA, r"type int64; expected float32"),
        (PIXELS, {}, "metadata do not say how to normalise"),
        (PIXELS[:, :2], METADATA, r"shape \(7, 2, 5, 4\); expected \(n, 3, H, W\) or \(n, H, W, 3\)"),
        (PIXELS[:, 0], METADATA, r"shape \(7, 5, 4\)"),
        (PIXELS[:0], METADATA, r"shape \(0, 3, 5, 4\); .* at least one"),
        (np.float32(1), METADATA, r"shape \(\)"),
        (np.array([{}]), METADATA, "no NumPy file of plain numbers"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(tmp_path, array, metadata, message):
    path = tmp_path / "data.npy"
    np.save(path, array, allow_pickle=True)
    if np.asarray(array).ndim == 1:  # of objects, which a loader must not unpickle
        message = "no NumPy file of plain numbers"
    with pytest.raises(InputError, match=message):
        load_calibration(path, metadata=metadata)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04damaged"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "data.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"data\.npy: "):
        load_calibration(path, metadata=METADATA)


def test_a_text_file_is_refused_without_advice_to_load_pickles(tmp_path):
    path = tmp_path / "text.npy"
    path.write_text("1 2 3")
    with pytest.raises(InputError, match="no NumPy file") as refusal:
        load_calibration(path, metadata=METADATA)
    assert "pickle" not in str(refusal.value)


def header(shape):
    """An `.npy` file without its data."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


def archived(content, *, at=(), method=zipfile.ZIP_STORED):
    """An `.npz` file with bytes of its headers changed: offset in the local one and in that of the directory."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("images.npy", content)
    data = bytearray(file.getvalue())
    for local, central, value in at:
        data[local] = value
        data[data.find(b"PK\x01\x02") + central] = value
    return data


def damaged_lzma():
    data = archived(np.random.default_rng(3).bytes(500), method=zipfile.ZIP_LZMA)
    data[49:100] = b"\xff" * 51
    return data


HOSTILE = {
    "header of a huge array": header((10**13, 3, 32, 32)),
    "header of a huge array in an archive": archived(header((10**13, 3, 32, 32))),
    "encrypted": archived(b"content", at=[(6, 8, 1)]),
    "unknown method": archived(b"content", at=[(8, 10, 97)]),
    "damaged LZMA": damaged_lzma(),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused(tmp_path, kind):
    (tmp_path / "data.npz").write_bytes(HOSTILE[kind])
    with pytest.raises(InputError, match=r"data\.npz: "):
        load_calibration(tmp_path / "data.npz", metadata=METADATA)


def test_a_name_too_long_for_a_file_system_is_refused(tmp_path):
    with pytest.raises(InputError, match="too long"):
        load_calibration(tmp_path / ("n" * 300), metadata=METADATA)


@pytest.mark.parametrize(
    "rule",
    [
        "[" * 100_000,
        '{"mean": [NaN], "std": [1]}',
        '{"mean": [0], "std": [NaN]}',
        '{"mean": [0], "std": [1e999]}',
        f'{{"mean": [1{"0" * 400}], "std": [1]}}',
    ],
)
def test_damaged_metadata_are_refused(tmp_path, rule):
    np.save(tmp_path / "images.npy", PIXELS)
    with pytest.raises(InputError, match="modelpress.input are damaged"):
        load_calibration(tmp_path / "images.npy", metadata={"modelpress.input": rule})


def test_several_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "data.npz", a=PIXELS, b=PIXELS)
    with pytest.raises(InputError, match=r"holds 2 arrays \(a, b\); expected one"):
        load_calibration(tmp_path / "data.npz", metadata=METADATA)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.npy: cannot be read: No such file"):
        load_calibration(tmp_path / "nothing.npy", metadata=METADATA)


def test_a_folder_without_the_data_set_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no CIFAR-10"):
        load_calibration(tmp_path, metadata=METADATA)


def test_no_data_at_all_says_what_to_pass():
    with pytest.raises(InputError, match=r"needs calibration data: pass --calibration-data FILE\.npy"):
        load_calibration(None, metadata=METADATA)


def test_no_images_at_all_are_refused(tmp_path):
    with pytest.raises(InputError, match="0 calibration images are too few"):
        load_calibration(tmp_path, n_images=0, metadata=METADATA)
