"""Data of the user's own: every kind of source, the same splits each time, and what is refused."""

import csv

import numpy as np
import pytest

from modelpress.export.errors import InputError
from modelpress.toolkit.data.options import DataOptions, TaskOptions
from modelpress.toolkit.data.own_data import load_own
from modelpress.toolkit.data.png_file import encode_png

pytest.importorskip("PIL")

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (30, 3, 8, 10), dtype=np.uint8)
LABELS = np.arange(30) % 3
NAMES = ("ant", "bee", "cat")
FUNCTIONS = """
import numpy as np

class Items:
    classes = ["low", "high"]
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, k):
        if k == 13: raise OSError("disk is gone")
        return np.full((4,), k, np.float32), int(k > self.n // 2)

def whole(n): return Items(n)
def parts(n): return {"train": Items(n), "test": Items(3)}
def raising(): raise RuntimeError("no such table")
def loss(outputs, targets): raise ValueError("shapes")
"""


def own(source, task="classification", **options):
    return load_own(DataOptions(source=str(source), **options), TaskOptions(kind=task))


@pytest.fixture
def folder(tmp_path):
    for k, (image, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        path = tmp_path / "photos" / NAMES[label] / f"{k:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(image))
    return tmp_path / "photos"


@pytest.fixture
def table(tmp_path):
    features = RNG.normal(3, 2, (40, 5))
    np.savez(tmp_path / "table.npz", x=features, labels=np.arange(40) % 2)
    return tmp_path / "table.npz"


@pytest.fixture
def functions(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)
    return path


def test_a_folder_and_a_table_of_its_files_are_the_same_data(folder, tmp_path):
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "path"])
        writer.writerows(
            [p.parent.name, f"photos/{p.parent.name}/{p.name}"] for p in sorted(folder.rglob("*.png"))
        )
    a, b = own(folder), own(tmp_path / "list.csv")
    assert a.class_names == b.class_names == NAMES
    assert a.fingerprint() == b.fingerprint()
    assert (len(a.train), len(a.validation), len(a.test)) == (21, 3, 6)
    seen = {image.tobytes(): NAMES[label] for image, label in zip(PIXELS, LABELS, strict=True)}
    for split in (a.train, a.test):
        assert all(seen[x.tobytes()] == NAMES[y] for x, y in zip(split.images, split.labels, strict=True))


def test_fractions_take_from_every_class_and_follow_the_seed(folder):
    data = own(folder)
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]
    assert data.fingerprint() == own(folder).fingerprint() != own(folder, split_seed=1).fingerprint()
    assert len(own(folder, test=0.5, validation=0.0).test) == 15


def test_parts_that_a_source_names_are_kept(folder, tmp_path):
    (tmp_path / "split").mkdir()
    folder.rename(tmp_path / "split" / "train")
    other = tmp_path / "split" / "test" / "bee"
    other.mkdir(parents=True)
    (other / "x.png").write_bytes(encode_png(PIXELS[0]))
    data = own(tmp_path / "split")
    assert (len(data.train) + len(data.validation), len(data.test)) == (30, 1)
    assert data.test.labels.tolist() == [1]
    elsewhere = own(tmp_path / "split" / "train", test=str(tmp_path / "split" / "test"))
    assert elsewhere.fingerprint() == data.fingerprint()


def test_arrays_of_any_type_keep_what_networks_take(tmp_path):
    n = 24
    np.savez(
        tmp_path / "several.npz",
        image=RNG.integers(0, 256, (n, 6, 6, 3), dtype=np.uint8),
        tokens=RNG.integers(0, 50, (n, 7), dtype=np.uint16),
        numbers=RNG.random((n, 2)),
        targets=RNG.random(n),
        split=np.repeat(["train", "validation", "test"], 8),
    )
    data = own(tmp_path / "several.npz", "regression")
    kinds = {name: (str(rows.dtype), rows.shape[1:]) for name, rows in data.train.inputs.items()}
    assert kinds == {"image": ("uint8", (3, 6, 6)), "tokens": ("int64", (7,)), "numbers": ("float32", (2,))}
    assert data.train.labels.shape == (8, 1)
    assert data.metric.name == "mean absolute error"


def test_what_does_not_fit_is_read_from_the_disk_and_is_the_same(tmp_path):
    values = RNG.random((10_000, 64))
    np.save(tmp_path / "x.npy", values)
    np.save(tmp_path / "y.npy", np.arange(10_000) % 4)
    labels = str(tmp_path / "y.npy")
    held, streamed = (own(tmp_path / "x.npy", labels=labels, memory=m) for m in (100, 1))
    assert (held.streams, streamed.streams) == (False, True)
    assert held.fingerprint() == streamed.fingerprint()
    assert "2 MiB of examples, 1 MiB may be in memory" in streamed.notes[0]
    order = np.array([7, 3, 400])
    np.testing.assert_array_equal(held.train.first[order], streamed.train.first[order])


def test_normalisation_is_measured_on_training_examples(table, folder):
    data = own(table, normalise="standard")
    values = data.train.first[:].astype(np.float64)
    np.testing.assert_allclose(data.mean, values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(data.std, values.std(0), rtol=1e-6)
    assert own(table).mean == ()
    images = own(folder)
    np.testing.assert_allclose(images.mean, images.train.images.mean((0, 2, 3)) / 255, atol=1e-4)
    assert own(folder, normalise="imagenet").mean == (0.485, 0.456, 0.406)


def test_a_function_gives_a_data_set_or_one_for_each_part(functions):
    data = own(f"{functions}:whole", arguments={"n": 10})
    assert data.class_names == ("low", "high")
    assert len(data.train) + len(data.validation) + len(data.test) == 10
    parts = own(f"{functions}:parts", arguments={"n": 10})
    assert parts.test.first[:][:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("raising", r"data.source '.*:raising' raised RuntimeError: no such table"),
        ("nothing", r"there is no function 'nothing'"),
    ],
)
def test_a_function_that_fails_is_named(functions, call, said):
    with pytest.raises(InputError, match=said):
        own(f"{functions}:{call}")


def test_an_item_that_fails_is_named(functions):
    with pytest.raises(InputError, match="item 13 raised OSError: disk is gone"):
        own(f"{functions}:whole", arguments={"n": 20})


def test_unreadable_images_are_named_counted_and_left_out_below_a_share(folder):
    (folder / "ant" / "broken.png").write_bytes(encode_png(PIXELS[0])[:60])
    with pytest.raises(
        InputError, match=r"1 of 31 images are unreadable: .*broken.png \(.*up to 0.01 of them may be"
    ):
        own(folder)
    data = own(folder, unreadable=0.05)
    assert len(data.train) + len(data.validation) + len(data.test) == 30
    assert "broken.png; they are left out" in data.notes[0]


def test_sizes_must_agree_unless_images_are_resized(folder):
    (folder / "bee" / "wide.png").write_bytes(encode_png(RNG.integers(0, 256, (3, 16, 40), dtype=np.uint8)))
    with pytest.raises(
        InputError, match=r"2 sizes .*8x10 and wide.png 16x40; give one, as in --set data.res"
    ):
        own(folder)
    assert own(folder, resize=8).train.first.shape[1:] == (3, 8, 8)
    assert own(folder, resize=(4, 6), colour="grey").train.first.shape[1:] == (1, 4, 6)


def test_a_table_that_names_missing_files_is_refused(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\na.png,ant\nb.png,bee\n")
    with pytest.raises(
        InputError, match=r"2 of 2 files are missing: .*a.png, .*b.png; paths are relative to"
    ):
        own(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text("picture,label\na.png,ant\n")
    with pytest.raises(InputError, match="its columns are picture, label; expected path and label"):
        own(tmp_path / "list.csv")


def test_an_empty_folder_and_loose_images_are_refused(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no images; expected a folder per class"):
        own(tmp_path / "empty")
    with pytest.raises(InputError, match="holds 10 images, none of them in the folder of a class"):
        own(folder / "ant")
    with pytest.raises(InputError, match="data .*missing does not exist; expected a folder of images"):
        own(tmp_path / "missing")


@pytest.mark.parametrize(
    ("targets", "task", "said"),
    [
        (np.array([0, 1, -2, 1]), "classification", "example 2 has label -2; expected 0 or more"),
        (np.array([0.5, 1, 2, 1]), "classification", "labels have type float64; expected whole numbers"),
        (
            np.zeros((4, 2), int),
            "classification",
            r"labels have shape \(4, 2\); expected one for each example",
        ),
        (np.array([1.0, np.nan, 0, 0]), "regression", "labels of example 1 is NaN or infinite"),
        (np.full((4, 2), 3), "multi-label", r"task multi-label takes 0 or 1 in \(n, labels\)"),
        (np.array([[0, -5]] * 4), "sequence", "example 0 has label -5; expected 0 or more, or -100"),
    ],
)
def test_targets_that_do_not_suit_the_task_are_refused(tmp_path, targets, task, said):
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 3)), labels=targets)
    with pytest.raises(InputError, match=said):
        own(tmp_path / "a.npz", task)


def test_inputs_with_nan_and_labels_out_of_range_are_refused(tmp_path):
    x = np.zeros((6, 3), np.float32)
    x[4, 1] = np.nan
    np.savez(tmp_path / "a.npz", x=x, labels=np.zeros(6, int))
    with pytest.raises(InputError, match="a.npz: x of example 4 is NaN or infinite"):
        own(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.zeros((6, 3)), labels=np.arange(6), classes=["a", "b"])
    with pytest.raises(InputError, match="example 2 has label 2; expected 0 to 1"):
        own(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", x=np.zeros((6, 3)), labels=np.zeros(5, int))
    with pytest.raises(InputError, match="different lengths, or none: x 6, labels 5"):
        own(tmp_path / "c.npz")
