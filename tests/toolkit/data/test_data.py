import re

import numpy as np
import pytest
import torch

from modelpress.export.errors import InputError
from modelpress.toolkit.data.batches import EpochPlan, n_batches, to_device
from modelpress.toolkit.data.cifar10 import load_cifar10, read_batch
from modelpress.toolkit.data.data_set import normalised
from modelpress.toolkit.data.digits import load_digits
from modelpress.toolkit.data.registry import load_data_set

CPU = torch.device("cpu")


def batch_bytes(n, seed=0):
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, (n, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    return records


@pytest.fixture
def tiny_cifar(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for index in range(1, 6):
        batch_bytes(8, index).tofile(folder / f"data_batch_{index}.bin")
    batch_bytes(5, 9).tofile(folder / "test_batch.bin")
    return tmp_path


def test_binary_records_become_planes_and_labels(tmp_path):
    records = batch_bytes(3)
    records.tofile(tmp_path / "b.bin")
    split = read_batch(tmp_path / "b.bin")
    assert split.labels.tolist() == records[:, 0].tolist()
    assert split.images[1, 2, 3, 4] == records[1, 1 + 2 * 1024 + 3 * 32 + 4]


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_folder_may_be_the_outer_or_the_inner_one(tiny_cifar, inner):
    images = load_cifar10(str(tiny_cifar / inner))
    assert (len(images.train), len(images.test)) == (40, 5)


@pytest.mark.parametrize("missing", [1, 3072])
def test_truncated_batch_is_refused_by_name(tiny_cifar, missing):
    path = tiny_cifar / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(InputError, match="data_batch_3.bin: .* truncated"):
        load_cifar10(str(tiny_cifar))


def test_impossible_label_and_missing_batch_are_refused(tiny_cifar):
    folder = tiny_cifar / "cifar-10-batches-bin"
    records = batch_bytes(4)
    records[2, 0] = 10
    records.tofile(folder / "data_batch_2.bin")
    with pytest.raises(InputError, match="record 2 has label 10; expected 0 to 9"):
        load_cifar10(str(tiny_cifar))
    (folder / "data_batch_2.bin").unlink()
    with pytest.raises(InputError, match="data_batch_2.bin: cannot be read"):
        load_cifar10(str(tiny_cifar))


def test_missing_folder_says_what_to_pass(tmp_path):
    with pytest.raises(InputError, match="pass --data-dir"):
        load_data_set("cifar10")
    with pytest.raises(InputError, match="does not exist"):
        load_data_set("cifar10", folder=str(tmp_path / "no"))
    with pytest.raises(InputError, match="holds no CIFAR-10"):
        load_data_set("cifar10", folder=str(tmp_path))
    with pytest.raises(InputError, match="'mnist' is unknown"):
        load_data_set("mnist")


def test_torchvision_layout_is_read_where_the_binary_one_is_missing(tmp_path, monkeypatch):
    import torchvision.datasets

    (tmp_path / "cifar-10-batches-py").mkdir()

    class Fake:
        def __init__(self, root, train, download):
            self.data = np.full((4, 32, 32, 3), 7, np.uint8)
            self.data[0, 1, 2, :] = [1, 2, 3]
            self.targets = [0, 1, 2, 3]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    images = load_cifar10(str(tmp_path))
    assert images.train.images[0, :, 1, 2].tolist() == [1, 2, 3]


def test_damaged_torchvision_files_are_a_plain_error(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(InputError, match="torchvision cannot load CIFAR-10"):
        load_cifar10(str(tmp_path))


def test_held_out_images_are_gone_from_training_and_the_test_set_is_fixed():
    digits = load_digits()
    split = digits.hold_out(0.1)
    assert len(split.validation) == round(0.1 * len(digits.train))
    together = np.concatenate([split.train.images, split.validation.images]).reshape(len(digits.train), -1)
    everything = digits.train.images.reshape(len(digits.train), -1)
    assert sorted(map(bytes, together)) == sorted(map(bytes, everything))
    np.testing.assert_array_equal(split.test.images, load_digits().test.images)
    assert digits.fingerprint() == split.fingerprint()
    np.testing.assert_array_equal(digits.hold_out(0.1).validation.images, split.validation.images)


def test_batches_in_order_are_the_normalised_images():
    digits = load_digits()
    on_device = to_device(digits.test, digits, CPU, padding=3)
    found = torch.cat([x for x, _ in on_device.in_order(100)]).numpy()
    np.testing.assert_array_equal(found, normalised(digits.test.images, digits.mean, digits.std))


def test_crops_and_mirrors_are_those_of_an_obvious_loop():
    digits = load_digits()
    split = to_device(digits.test, digits, CPU, padding=2)
    plan = EpochPlan.draw(split, seed=1, epoch=4, mirror=True)
    images, labels = plan.batch(split, 2, size=16)
    assert plan.mirror.any()
    assert not plan.mirror.all()
    for row in range(16):
        place = 2 * 16 + row
        index, top, left = (int(x[place]) for x in (plan.order, plan.top, plan.left))
        crop = split.images[index, :, top : top + 32, left : left + 32].float()
        if plan.mirror[place]:
            crop = crop.flip(-1)
        torch.testing.assert_close(images[row], crop * split.scale + split.shift, rtol=0, atol=0)
        assert labels[row] == split.labels[index]


def test_a_plan_depends_on_seed_and_epoch_alone():
    digits = load_digits()
    split = to_device(digits.test, digits, CPU, padding=2)
    plans = [
        EpochPlan.draw(split, seed=s, epoch=e, mirror=False) for s, e in ((1, 1), (1, 1), (1, 2), (2, 1))
    ]
    assert torch.equal(plans[0].order, plans[1].order)
    assert not torch.equal(plans[0].order, plans[2].order)
    assert not torch.equal(plans[0].order, plans[3].order)
    assert not plans[0].mirror.any()
    assert sorted(plans[0].order.tolist()) == list(range(len(split)))
    assert n_batches(split, 100) == len(split) // 100


def test_the_test_file_alone_is_enough_to_measure(tiny_cifar):
    for path in tiny_cifar.glob("*/data_batch_*"):
        path.unlink()
    images = load_data_set("cifar10", folder=str(tiny_cifar), test_only=True)
    assert (len(images.train), len(images.test)) == (0, 5)


def test_digits_take_no_folder(tmp_path):
    with pytest.raises(InputError, match="the digits need no folder"):
        load_data_set("digits", folder=str(tmp_path))


def test_real_cifar10_has_the_stated_counts(cifar10_folder):
    images = load_cifar10(str(cifar10_folder))
    assert images.train.images.shape == (50_000, 3, 32, 32)
    assert np.bincount(images.train.labels).tolist() == [5000] * 10
    assert len(images.test) >= 9_000
    assert re.fullmatch("[0-9a-f]{64}", images.fingerprint())
