import json
import sys

import numpy as np
import pytest
import torch

from modelpress.export.errors import InputError
from modelpress.toolkit.data.batches import to_device
from modelpress.toolkit.data.registry import load_data_set
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.recipe import TrainingOptions, load_recipe
from modelpress.toolkit.studies.training_speed import rounds as training_speed
from modelpress.toolkit.studies.training_speed import streaming
from modelpress.toolkit.studies.training_speed.plain_loop import PictureDataset, train_plainly
from modelpress.toolkit.studies.training_speed.rounds import Measurement, TrainingJob, Way, measure_training
from modelpress.toolkit.studies.training_speed.ways import measure
from tests.helpers.command_line import one_line
from tests.helpers.environments import users_folder

CPU = torch.device("cpu")


def need_torchvision():
    return pytest.importorskip("torchvision", reason="the plain loop needs torchvision")


@pytest.fixture
def tiny_cifar(tmp_path):
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (8, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        records.tofile(tmp_path / name)
    return tmp_path


def tiny_job(folder, way, *, images=None, workers=0):
    recipe = load_recipe(None, {"data.dataset": "cifar10", "data.dir": str(folder), "run.device": "cpu"})
    return TrainingJob(way=way, recipe=recipe, images=images, batch=16, workers=workers)


@pytest.mark.parametrize("way", Way)
def test_every_way_trains(tiny_cifar, way):
    if way is Way.PLAIN:
        need_torchvision()
    measured = measure(tiny_job(tiny_cifar, way, images=32))
    assert measured.images == 32
    assert measured.images_per_second > 0
    assert ("float32" in measured.device) or way is not Way.FLOAT32


def test_a_process_of_its_own_measures_with_workers(tiny_cifar, tmp_path, monkeypatch):
    """Where the command is called, packages may have names that ours have."""
    need_torchvision()
    monkeypatch.chdir(users_folder(tmp_path / "user"))

    measured = training_speed._in_a_process(tiny_job(tiny_cifar, Way.PLAIN, workers=1))
    assert measured.images == 40
    assert measured.device.startswith("cpu")


def test_ways_take_turns_and_are_compared_within_a_round(monkeypatch):
    speeds = iter([100, 200, 50, 150, 300, 80, 80, 80, 80, 80])
    asked = []

    def pretend(job):
        asked.append(job.way)
        return Measurement(images_per_second=next(speeds), images=5, device="cpu")

    monkeypatch.setattr(training_speed, "_in_a_process", pretend)
    facts = measure_training(load_recipe(None, {}), batch=2, images=5, workers=0, rounds=2, progress=Silent())
    assert asked == [*Way, *Way]
    rows = {row["way"]: row for row in facts["ways"]}
    assert rows["ours"]["images_per_second"] == {"median": 140, "min": 80, "max": 200, "rounds": [200, 80]}
    assert rows["ours"]["ratio"] == {"median": 1.5, "min": 1, "max": 2, "rounds": [2, 1]}
    assert rows["plain PyTorch loop"]["ratio"]["rounds"] == [1, 1]


def test_command_prints_a_table_and_leaves_json(tiny_cifar, tmp_path, monkeypatch, call):
    monkeypatch.setattr(
        training_speed, "_in_a_process", lambda job: Measurement(images_per_second=7, images=5, device="cpu")
    )
    output = tmp_path / "training-speed.json"
    arguments = ["bench", "training", "--images", 5, "--batch", 2, "--rounds", 1, "-o", output]
    code, out, err = call(*arguments, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts == json.loads(output.read_text())
    assert (facts["schema_version"], facts["kind"], facts["batch"]) == (1, "training-speed", 2)
    assert facts["environment"]["training_device"] == "cpu"
    for way in Way:
        assert way in err
    code, _, err = call(*arguments)
    assert code == 1
    assert "pass --overwrite" in one_line(err)


def test_what_the_process_refuses_is_one_line_and_leaves_nothing(tmp_path, call):
    output = tmp_path / "training-speed.json"
    missing = ["--set", "data.dataset=cifar10", "--data-dir", tmp_path / "no", "--device", "cpu"]
    code, out, err = call("bench", "training", *missing, "-o", output)
    assert code == 1
    assert out == ""
    assert "does not exist; pass --data-dir" in one_line(err)
    assert not list(tmp_path.iterdir())


def test_plain_loop_without_torchvision_says_what_to_install(tiny_cifar, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[train\]' in the checkout"):
        measure(tiny_job(tiny_cifar, Way.PLAIN))


def test_more_images_than_there_are_are_refused(tiny_cifar):
    with pytest.raises(InputError, match="--images is 41; cifar10 has 40 training images"):
        measure(tiny_job(tiny_cifar, Way.FLOAT, images=41))


def test_plain_loop_sees_the_pictures_that_our_loop_sees(tiny_cifar):
    transforms = pytest.importorskip("torchvision.transforms", reason="the plain loop needs torchvision")
    images = load_data_set("cifar10", folder=str(tiny_cifar))
    plain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(images.mean, images.std)])
    pictures = PictureDataset(images.train, plain)
    ours, _ = next(to_device(images.train, images, CPU).in_order(3))
    for index in range(3):
        picture, label = pictures[index]
        torch.testing.assert_close(picture, ours[index])
        assert label == images.train.labels[index]


def test_plain_loop_moves_the_weights(tiny_cifar):
    need_torchvision()
    images = load_data_set("cifar10", folder=str(tiny_cifar))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
    before = network[1].weight.detach().clone()
    speeds = train_plainly(network, images, TrainingOptions(epochs=2, batch=16), CPU, workers=0)
    assert len(speeds) == 2
    assert not torch.equal(network[1].weight, before)


def test_images_train_from_memory_and_from_the_disk(tmp_path):
    streaming.write_images(tmp_path, 2)
    for store, memory in (
        (streaming.Store.MEMORY, 32),
        (streaming.Store.ARRAY, 1),
        (streaming.Store.FILES, 1),
    ):
        job = streaming.StreamingJob(store=store, folder=str(tmp_path), memory=memory, batch=64)
        assert streaming.measure(job).images_per_second > 0
