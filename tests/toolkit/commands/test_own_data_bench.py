"""Accuracy of a foreign ONNX model on labelled examples of one's own: the same figures as a plain script's."""

import json
import re
import warnings

import numpy as np
import onnxruntime as ort
import pytest

from tests.helpers.command_line import modelpress, one_line

pytest.importorskip("PIL")
torch = pytest.importorskip("torch")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPEED = ("--rounds", "1", "--batch", "1", "--threads", "1")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of noise around another brightness, of two sizes."""
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("bench") / "photos", np.random.default_rng(0)
    for label, name in enumerate(("dark", "grey", "light")):
        (folder / name).mkdir(parents=True)
        for k in range(12):
            size = (40 + 8 * (k % 2), 44, 3)
            image = np.clip(rng.normal(60 + 60 * label, 70, size), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / name / f"{k}.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def model(photos):
    """A network of torchvision as torch exports it, its last layer fitted a little."""
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    network = squeezenet1_1(num_classes=3).eval()
    path = photos.parent / "own.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about exporters to come
        torch.onnx.export(
            network,
            (torch.randn(2, 3, 32, 32),),
            path,
            dynamo=False,
            input_names=["pixels"],
            dynamic_axes={"pixels": [0]},
        )
    return path


def plainly(photos, model):
    """Images, labels and logits, without this project."""
    from PIL import Image

    names, images, labels = sorted(p.name for p in photos.iterdir()), [], []
    for label, name in enumerate(names):
        for path in sorted((photos / name).iterdir()):
            image = Image.open(path).convert("RGB")
            ratio = max(32 / image.width, 32 / image.height)
            image = image.resize((round(image.width * ratio), round(image.height * ratio)), Image.BILINEAR)
            left, top = (image.width - 32) // 2, (image.height - 32) // 2
            images.append(np.asarray(image.crop((left, top, left + 32, top + 32))))
            labels.append(label)
    pixels = np.stack(images).transpose(0, 3, 1, 2)
    x = ((pixels / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]).astype(np.float32)
    logits = ort.InferenceSession(model).run(None, {"pixels": x})[0]
    return pixels, np.array(labels), logits


@pytest.fixture
def benched(monkeypatch, capsys):
    """Runs `bench`; returns its record."""

    def bench(*arguments):
        assert modelpress(monkeypatch, "bench", *arguments, *SPEED, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return bench


def test_a_foreign_model_is_measured_on_a_folder_as_by_a_plain_script(photos, model, benched):
    pixels, labels, logits = plainly(photos, model)
    found = benched(model, "--data", photos, "--set", "data.normalise=imagenet", "--set", "data.resize=32")
    (record,) = found["models"]
    assert record["n_images"] == 36
    assert record["top1"] == np.mean(logits.argmax(1) == labels)
    assert record["top1_interval"][0] < record["top1"] < record["top1_interval"][1]
    assert found["dataset"]["name"] == "photos"
    assert str(photos.parent) not in json.dumps(found)

    np.savez(photos.parent / "photos.npz", pixels=pixels, labels=labels)
    again = benched(model, "--data", photos.parent / "photos.npz", "--set", "data.normalise=imagenet")
    assert again["models"][0]["top1"] == record["top1"]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("data.resize=32", (1, "does not say how pixels become its input; .* --set data.normalise=imagenet")),
        ("data.colour=blue", (1, "data.colour: Input should be 'rgb' or 'grey'")),
        ("prune.sparsity=1", (2, "expected a key of the sections data or task")),
    ],
)
def test_what_nobody_said_or_cannot_be_is_told(photos, model, refused, setting, told):
    code, said = told
    assert re.search(said, refused(code, model, "--data", photos, "--set", setting))


def test_data_have_a_name_or_are_ones_own(photos, model, refused):
    assert "give one of them" in refused(2, model, "--data", photos, "--dataset", "digits")


@pytest.fixture
def refused(monkeypatch, capsys):
    """Runs `bench`, which ends with that code; returns what it says."""

    def bench(code, *arguments):
        assert modelpress(monkeypatch, "bench", *arguments) == code
        return one_line(capsys.readouterr().err.splitlines()[-1])

    return bench
