"""`modelpress bundle`: what is handed over runs alone, and tells when it is not what it claims to be."""

import ast
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from modelpress.export.handoff import bundle_files
from modelpress.export.handoff.bundle_files import run, verify
from modelpress.export.handoff.manifest import Manifest
from modelpress.export.press.reading import read_artifact
from modelpress.export.press.writing import write_artifact
from modelpress.export.runtime import open_decoded, run_batched
from modelpress.toolkit.commands.bundle import claims as bundle_claims
from modelpress.toolkit.commands.bundle import making as bundle_command
from modelpress.toolkit.commands.bundle.claims import choose_samples
from modelpress.toolkit.data.cifar10 import CLASS_NAMES, MEAN, STD
from modelpress.toolkit.data.data_set import normalised
from tests.helpers.bundles import classifier, manifest_of, seal
from tests.helpers.command_line import modelpress, one_line
from tests.helpers.models import small_model
from tests.helpers.paths import RECIPES

Image = pytest.importorskip("PIL.Image")
N_IMAGES = 120
INPUT_RULE = {"layout": "NCHW, RGB, (pixel / 255 - mean) / std", "mean": MEAN, "std": STD}
METADATA = {
    "modelpress.dataset": "cifar10",
    "modelpress.classes": json.dumps(CLASS_NAMES),
    "modelpress.input": json.dumps(INPUT_RULE),
}
# The environment of the device: nothing of this project, no torch, no onnx.
ALONE = """
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("No module named " + repr(name))
sys.meta_path.insert(0, Blocker())
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
OURS = ("modelpress", "onnx", "torch", "torchvision", "pydantic", "scipy")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """An artifact, and a data set of which it gets about three quarters right."""
    folder = tmp_path_factory.mktemp("inputs")
    model = classifier(METADATA)
    write_artifact(folder / "model.press", model)
    rng = np.random.default_rng(9)
    colour = rng.integers(0, 256, (N_IMAGES, 3, 1, 1))
    noise = rng.integers(-60, 61, (N_IMAGES, 3, 32, 32))
    images = np.clip(colour + noise, 0, 255).astype(np.uint8)
    labels = run_batched(open_decoded(model), normalised(images, MEAN, STD)).argmax(axis=1)
    wrong = rng.random(N_IMAGES) < 0.25
    labels[wrong] = (labels[wrong] + 1) % 10
    records = np.hstack([labels[:, None].astype(np.uint8), images.reshape(N_IMAGES, -1)])
    (folder / "data").mkdir()
    records.tofile(folder / "data" / "test_batch.bin")
    return folder


@pytest.fixture(scope="module")
def original(inputs):
    """The bundle that all tests copy."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(bundle_claims, "ROUNDS", 1)
        arguments = [
            "bundle",
            inputs / "model.press",
            "-o",
            inputs / "handoff",
            "--data-dir",
            inputs / "data",
        ]
        assert modelpress(monkeypatch, *arguments, "--license", "Apache-2.0", "--samples", 8) == 0
    return inputs / "handoff"


@pytest.fixture
def handoff(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(verify, "_MAX_SECONDS", 0)
    monkeypatch.setattr(bundle_claims, "ROUNDS", 1)


def failures(folder, *, data_dir=None, factor=None):
    found = list(verify.findings(folder, data_dir, factor=factor))
    return [finding.check for finding in found if finding.holds is False]


def run_alone(script, *arguments, blocked=OURS, cwd="/"):
    code = ALONE.format(blocked=blocked, argv=[str(script), *map(str, arguments)])
    command = [sys.executable, "-I", "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def classified(capsys, contract_folder, *files):
    """What `run.py` says of some files, in this process."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(run, "HERE", contract_folder)
        code = run.main([*map(str, files), "--json", "--top", "10"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if code == 0 else [], captured.err


def test_a_bundle_holds_what_it_promises(original, inputs):
    manifest = Manifest.model_validate(manifest_of(original))
    names = {path.relative_to(original).as_posix() for path in original.rglob("*") if path.is_file()}
    assert names == {*manifest.files, "manifest.json", "SHA256SUMS"}
    samples = {sample.file for sample in manifest.claims.samples.images}
    scripts = {"run.py", "verify.py", "image_data.py", "expand.py", "requirements.txt", "MODEL_CARD.md"}
    scripts |= {
        "sbom.cdx.json",
        "operators.config",
        "reference/tensors.txt",
        *(f"port/check.{e}" for e in ("py", "cpp", "mjs")),
    }
    scripts |= {f"reference/{call}-{end}-0.npy" for call in range(2) for end in ("input", "output")}
    assert names - samples - scripts == {"model.press", "model.onnx", "manifest.json", "SHA256SUMS"}
    assert (original / "model.press").read_bytes() == (inputs / "model.press").read_bytes()
    assert manifest.license == "Apache-2.0"
    assert manifest.contract.labels == list(CLASS_NAMES)
    assert (inputs / "handoff.zip").is_file()


def test_claims_are_what_the_model_does(original, inputs):
    claims = Manifest.model_validate(manifest_of(original)).claims
    records = np.fromfile(inputs / "data" / "test_batch.bin", np.uint8).reshape(N_IMAGES, -1)
    pixels = normalised(records[:, 1:].reshape(-1, 3, 32, 32), MEAN, STD)
    predicted = run_batched(open_decoded(read_artifact(inputs / "model.press")), pixels).argmax(axis=1)
    assert claims.accuracy.top1 == np.mean(predicted == records[:, 0])
    assert 0.6 < claims.accuracy.top1 < 0.9
    assert claims.accuracy.n_images == N_IMAGES
    assert claims.latency.p90_ms >= claims.latency.p50_ms > 0
    assert len(claims.samples.images) == 8
    assert all(sample.label == sample.predicted for sample in claims.samples.images)


def test_the_runner_works_alone_and_from_anywhere(original, tmp_path):
    samples = manifest_of(original)["claims"]["samples"]["images"]
    files = [original / sample["file"] for sample in samples]
    done = run_alone(original / "run.py", *files, "--json", "--top", 1, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for sample, found in zip(samples, json.loads(done.stdout), strict=True):
        assert found["top"][0]["label"] == CLASS_NAMES[sample["label"]]
        assert found["top"][0]["probability"] == pytest.approx(sample["probability"], abs=1e-4)
    assert not list(original.rglob("*.pyc"))


def test_the_verifier_works_alone_without_pillow_and_measures_again(original, inputs, tmp_path):
    done = run_alone(
        original / "verify.py",
        "--data-dir",
        inputs / "data",
        "--latency",
        100,
        blocked=(*OURS, "PIL"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    *lines, beyond, counts = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["held"] * 7
    assert beyond.startswith("not checked  model.press: this script cannot read it")
    assert counts == "7 held, 0 FAILED, 1 not checked"


def test_the_scripts_are_python_3_9_and_import_nothing_of_ours():
    for name in (*bundle_command.SCRIPTS, "port_check.py"):
        tree = ast.parse(Path(bundle_files.__path__[0], name).read_text(), feature_version=(3, 9))
        imported = {
            alias.name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        } | {node.module.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        needs = {"onnx"} if name == "expand.py" else {"onnxruntime", "PIL"}
        assert imported <= {*sys.stdlib_module_names, "numpy", *needs}


def test_a_changed_byte_in_any_file_is_found(handoff):
    assert failures(handoff) == []
    for path in sorted(path for path in handoff.rglob("*") if path.is_file()):
        good = path.read_bytes()
        for position in {0, len(good) // 2, len(good) - 1}:
            changed = bytearray(good)
            changed[position] ^= 1
            path.write_bytes(changed)
            assert verify.finding("files", verify.BundleFolder(handoff).check_files).holds is False
        path.write_bytes(good)
    assert failures(handoff) == []


def test_files_added_removed_or_linked_are_found(handoff, tmp_path):
    (handoff / "more.txt").write_text("")
    assert failures(handoff) == ["files"]
    (handoff / "more.txt").unlink()
    shutil.copy(handoff / "run.py", tmp_path / "run.py")
    (handoff / "run.py").unlink()
    assert failures(handoff) == ["files"]
    (handoff / "run.py").symlink_to(tmp_path / "run.py")
    assert failures(handoff) == ["files"]


def changed(manifest, where, value):
    *parents, last = where
    for key in parents:
        manifest = manifest[key]
    assert manifest[last] != value
    manifest[last] = value


CLAIMS = {
    "accuracy": (("claims", "accuracy", "top1"), 0.79),
    "accuracy of no whole number of images": (("claims", "accuracy", "top1"), 0.7512),
    "accuracy of other images": (("claims", "accuracy", "fingerprint"), "0" * 64),
    "number of images": (("claims", "accuracy", "n_images"), 10_000),
    "latency": (("claims", "latency", "p50_ms"), 1e-5),
    "predicted class": (("claims", "samples", "images", 3, "predicted"), 9),
    "true class": (("claims", "samples", "images", 3, "label"), 9),
    "probability": (("claims", "samples", "images", 0, "probability"), 0.05),
    "agreement": (("claims", "samples", "agreement"), 0.9),
    "name of a class": (("contract", "labels", 3), "tiger"),
    "normalisation": (("contract", "normalisation", "mean"), [0.5, 0.5, 0.5]),
    "scale": (("contract", "normalisation", "scale"), 1.0),
    "input shape": (("contract", "input_shape"), ["N", 3, 64, 64]),
    "input name": (("contract", "input_name"), "pixels"),
    "what the model says of itself": (("metadata", "modelpress.dataset"), "digits"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_changed_claim_is_found(handoff, inputs, claim):
    manifest = manifest_of(handoff)
    changed(manifest, *CLAIMS[claim])
    (handoff / "manifest.json").write_text(json.dumps(manifest, indent=2))
    assert "files" in failures(handoff)
    # even where the checksums were made to fit: measured again
    document = Manifest.model_validate(manifest)
    (handoff / "manifest.json").write_bytes(document.to_bytes())
    (handoff / "SHA256SUMS").write_bytes(document.sums(document.to_bytes()))
    found = failures(handoff, data_dir=inputs / "data", factor=3.0)
    assert found
    assert "files" not in found


@pytest.mark.parametrize(
    ("key", "value"), [("threads", 200_000), ("batch", 10**6), ("batch", 0), ("batch", "1")]
)
def test_a_latency_out_of_bounds_is_not_measured(handoff, monkeypatch, key, value):
    manifest = manifest_of(handoff)
    manifest["claims"]["latency"][key] = value
    seal(handoff, manifest)
    bundle = verify.BundleFolder(handoff)
    bundle.load()
    monkeypatch.setattr(verify, "open_session", None)  # none is opened
    with pytest.raises(verify.Failed, match=f"{key} is {value}; expected 1 to 1024"):
        bundle.check_latency(None)


NUMBERS = {"latency": ("latency", "p50_ms"), "samples": ("samples", "images", 0, "probability")}


@pytest.mark.parametrize("claim", NUMBERS)
@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_claims_that_are_not_finite_do_not_hold(handoff, claim, value):
    manifest = manifest_of(handoff)
    changed(manifest["claims"], NUMBERS[claim], float(value))
    seal(handoff, manifest)
    text = (handoff / "manifest.json").read_text()
    (handoff / "manifest.json").write_text(text.replace("Infinity", value))
    found = {finding.check: finding.detail for finding in verify.findings(handoff, None, factor=3.0)}
    assert found["manifest"] == f"manifest.json holds {value}; expected finite numbers"
    assert "latency" not in found


@pytest.mark.parametrize("claim", NUMBERS)
def test_no_comparison_with_nan_holds(handoff, claim):
    bundle = verify.BundleFolder(handoff)
    bundle.load()
    changed(bundle.manifest["claims"], NUMBERS[claim], float("nan"))
    check = {"latency": lambda: bundle.check_latency(3.0), "samples": bundle.check_samples}[claim]
    with pytest.raises(verify.Failed):
        check()


def test_verify_of_a_bundle_times_nothing(handoff, call, monkeypatch):
    monkeypatch.setattr(verify, "median_ms", None)
    code, _, err = call("verify", handoff)
    assert code == 0, err


def png(width, height, content):
    """An RGB file whose header may claim another size than its content has."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_sample_of_another_size_is_not_unpacked(handoff, tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    path.write_bytes(png(32, 32, bytes(32 * 97) + bytes(10**6)))
    assert verify.read_png(path, [3, 32, 32]).shape == (3, 32, 32)  # and what follows is not
    path.write_bytes(png(32, 32, bytes(100)))
    with pytest.raises(verify.Failed, match="truncated"):
        verify.read_png(path, [3, 32, 32])
    path.write_bytes(png(1 << 20, 1 << 20, bytes(100)))
    manifest = manifest_of(handoff)
    shutil.copy(path, handoff / manifest["claims"]["samples"]["images"][0]["file"])
    seal(handoff, manifest)
    bundle = verify.BundleFolder(handoff)
    bundle.load()
    monkeypatch.setattr(verify, "zlib", None)
    with pytest.raises(verify.Failed, match=r"the model takes \[3, 32, 32\]"):
        bundle.check_samples()


def test_a_model_with_sparse_weights_in_another_file_is_refused(handoff, call):
    model = onnx.load(handoff / "model.onnx")
    sparse = model.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(onnx.TensorProto(name="leak", data_type=1, dims=[1], data_location=1))
    sparse.values.external_data.add(key="location", value="secret.bin")
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(np.array([0], np.int64)))
    (handoff / "model.onnx").write_bytes(model.SerializeToString())
    seal(handoff, manifest_of(handoff))
    code, _, err = call("verify", handoff)
    assert code == 1
    assert "another file" in one_line(err)


def test_the_verifier_fails_by_its_exit_code_and_says_where(handoff):
    (handoff / "model.press").write_bytes(b"other")
    done = run_alone(handoff / "verify.py")
    assert done.returncode == 1
    assert "FAILED       files: model.press was changed" in done.stdout
    (handoff / "manifest.json").write_text("{")
    done = run_alone(handoff / "verify.py")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr


def test_the_verifier_says_when_it_is_given_other_images(handoff, inputs, tmp_path):
    records = np.fromfile(inputs / "data" / "test_batch.bin", np.uint8)
    records[5] ^= 1
    records.tofile(tmp_path / "test_batch.bin")
    bundle = verify.BundleFolder(handoff)
    bundle.load()
    with pytest.raises(verify.Failed, match="holds other test images"):
        bundle.check_accuracy(tmp_path)
    records[:-1].tofile(tmp_path / "test_batch.bin")
    with pytest.raises(verify.Failed, match="truncated"):
        bundle.check_accuracy(tmp_path)
    with pytest.raises(verify.Failed, match=r"no test_batch.bin"):
        bundle.check_accuracy(handoff)


def test_arrays_and_image_files_give_the_same(handoff, tmp_path, capsys):
    sample = handoff / manifest_of(handoff)["claims"]["samples"]["images"][0]["file"]
    pixels = np.asarray(Image.open(sample))
    np.save(tmp_path / "hwc.npy", pixels)
    np.save(tmp_path / "nhwc.npy", np.stack([pixels, pixels]))
    np.save(tmp_path / "ready.npy", normalised(pixels.transpose(2, 0, 1)[None], MEAN, STD))
    np.save(tmp_path / "one.npy", normalised(pixels.transpose(2, 0, 1)[None], MEAN, STD)[0])
    code, found, err = classified(
        capsys, handoff, sample, *(tmp_path / f"{n}.npy" for n in ("hwc", "nhwc", "ready", "one"))
    )
    assert (code, err) == (0, "")
    assert len(found) == 6
    assert all(entry["top"] == found[0]["top"] for entry in found)
    assert sum(entry["probability"] for entry in found[0]["top"]) == pytest.approx(1)


def same_as_rgb(capsys, handoff, path, rgb, tmp_path):
    """Whether a file counts as this array of pixels."""
    np.save(tmp_path / "expected.npy", np.asarray(rgb))
    code, found, err = classified(capsys, handoff, path, tmp_path / "expected.npy")
    assert code == 0, err
    return found[0]["top"] == found[1]["top"]


def test_every_kind_of_image_becomes_upright_rgb(handoff, tmp_path, capsys):
    rng = np.random.default_rng(2)
    rgb = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
    grey, palette, cmyk = rgb.convert("L"), rgb.convert("P"), rgb.convert("CMYK")
    clear = rgb.convert("RGBA")
    clear.putalpha(Image.new("L", rgb.size, 0))
    sideways = rgb.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter, clockwise
    white = Image.new("RGB", rgb.size, "white")
    for number, (image, options, expected) in enumerate(
        (
            (grey, {}, grey.convert("RGB")),
            (palette, {}, palette.convert("RGB")),
            (cmyk, {"format": "TIFF"}, cmyk.convert("RGB")),
            (clear, {}, white),
            (sideways, {"exif": exif}, rgb),
        )
    ):
        path = tmp_path / f"{number}.{'tif' if options.get('format') else 'png'}"
        image.save(path, **options)
        assert same_as_rgb(capsys, handoff, path, expected, tmp_path), number


def test_other_sizes_are_resized_and_cropped_to_the_centre_and_it_says_so(handoff, tmp_path, capsys):
    wide = np.zeros((64, 96, 3), np.uint8)
    wide[:, 16:80] = 200  # the centre square
    Image.fromarray(wide).save(tmp_path / "wide.png")
    np.save(tmp_path / "centre.npy", np.full((32, 32, 3), 200, np.uint8))
    code, found, err = classified(capsys, handoff, tmp_path / "wide.png", tmp_path / "centre.npy")
    assert code == 0
    # bilinear filters reach one pixel beyond the edge of the crop
    assert found[0]["top"][0]["probability"] == pytest.approx(found[1]["top"][0]["probability"], abs=0.05)
    assert "wide.png: 96x64 resized to 48x32, cropped to 32x32" in err


def test_resizing_computes_the_centre_only_and_gives_the_same():
    rng = np.random.default_rng(4)
    for width, height in ((50, 90), (90, 50), (20, 7), (500, 33), (31, 1000)):
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        ratio = max(32 / width, 32 / height)
        size = (max(32, round(width * ratio)), max(32, round(height * ratio)))
        left, top = (size[0] - 32) // 2, (size[1] - 32) // 2
        expected = image.resize(size, Image.BILINEAR).crop((left, top, left + 32, top + 32))
        found = run.centre_of_resized(image, size, (32, 32))
        difference = np.asarray(found).astype(int) - np.asarray(expected).astype(int)
        assert np.abs(difference).max() <= 1, (width, height)


def test_a_very_thin_image_needs_no_more_memory_than_it_has_itself(handoff, tmp_path, capsys, monkeypatch):
    Image.new("RGB", (1, 900_000), "white").save(tmp_path / "thin.png")
    Image.new("RGB", (32, 32), "white").save(tmp_path / "white.png")
    resized = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda *args, **kw: resized.append(args[1]) or resize(*args, **kw)
    )
    code, found, _ = classified(capsys, handoff, tmp_path / "thin.png", tmp_path / "white.png")
    assert code == 0
    assert found[0]["top"] == found[1]["top"]
    assert resized == [(32, 32)]


def test_an_image_for_a_model_of_other_channels_is_one_line(handoff, tmp_path, capsys):
    manifest = manifest_of(handoff)
    manifest["contract"]["input_shape"] = ["N", 4, 32, 32]
    (handoff / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = classified(capsys, handoff, next((handoff / "samples").iterdir()))
    assert code == 1
    assert "the model takes 4 channels" in one_line(err)


def test_bad_input_to_the_runner_is_one_line(handoff, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no image")
    np.save(tmp_path / "doubles.npy", np.zeros((3, 32, 32)))
    np.save(tmp_path / "shape.npy", np.zeros((3, 16, 16), np.float32))
    np.save(tmp_path / "planes.npy", np.zeros((3, 32, 32), np.uint8))
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "doubles.npy").read_bytes()[:300])
    with (tmp_path / "huge.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**15, 3)}
        np.lib.format.write_array_header_1_0(file, header)
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "rare.ico")
    good = (handoff / manifest_of(handoff)["claims"]["samples"]["images"][0]["file"]).read_bytes()
    (tmp_path / "cut.png").write_bytes(good[:600])
    for name, message in {
        "nowhere.png": "does not exist",
        ".": "is no file",
        "text.png": "cannot be read as an image",
        "cut.png": "cannot be read as an image",
        "rare.ico": "cannot be read as an image",
        "deep.png": "expected 8 bits per colour",
        "doubles.npy": "expected pixels (uint8",
        "shape.npy": "float32 of shape (3, 32, 32) or (N, 3, 32, 32)",
        "planes.npy": "expected (H, W), (H, W, 3) or (H, W, 4)",
        "pickled.npy": "cannot be read as an array",
        "cut.npy": "cannot be read as an array",
        "huge.npy": "cannot be read as an array",
    }.items():
        code, _, err = classified(capsys, handoff, tmp_path / name)
        assert code == 1
        assert message in one_line(err)
    assert run.main([str(handoff / "x.png"), "--top", "0"]) == 1
    assert "--top" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("missing", ["numpy", "onnxruntime", "PIL"])
def test_the_runner_says_what_to_install(original, tmp_path, missing):
    sample = original / manifest_of(original)["claims"]["samples"]["images"][0]["file"]
    if missing == "PIL":
        Image.open(sample).save(tmp_path / "sample.bmp")
        sample = tmp_path / "sample.bmp"
    done = run_alone(original / "run.py", sample, blocked=(missing,))
    assert done.returncode == 1
    assert f"-m pip install -r {original / 'requirements.txt'}" in one_line(done.stderr)


def test_the_runner_reads_samples_without_pillow_as_with_it(original, tmp_path):
    sample = manifest_of(original)["claims"]["samples"]["images"][0]
    done = run_alone(original / "run.py", original / sample["file"], "--json", blocked=(*OURS, "PIL"))
    assert json.loads(done.stdout)[0]["top"][0]["probability"] == pytest.approx(
        sample["probability"], abs=1e-4
    )


def test_a_damaged_manifest_or_model_stops_the_runner(handoff, capsys):
    sample = next((handoff / "samples").iterdir())
    (handoff / "model.onnx").write_bytes(b"no model")
    code, _, err = classified(capsys, handoff, sample)
    assert code == 1
    assert "cannot load model.onnx" in one_line(err)
    (handoff / "manifest.json").write_text("[]")
    code, _, err = classified(capsys, handoff, sample)
    assert code == 1
    assert "manifest.json is damaged" in one_line(err)


def test_verify_takes_a_bundle_as_folder_or_archive(handoff, inputs, call):
    for path in (handoff, inputs / "handoff.zip"):
        code, out, err = call("verify", path, "--json")
        assert code == 0, err
        assert "8 images classified as claimed" in json.loads(out)["steps"]["samples"]
        assert "bit for bit" in json.loads(out)["steps"]["model.press, weights"]
    assert call("verify", handoff, "--against", handoff / "model.onnx")[0] == 2
    (handoff / "verify.py").write_text("raise SystemExit(0)")
    code, _, err = call("verify", handoff)
    assert code == 1
    assert "verify.py changed since the bundle was made" in one_line(err)


def test_without_images_there_is_no_accuracy_and_it_says_so(inputs, tmp_path, call):
    target = tmp_path / "out" / "handoff"
    code, out, err = call("bundle", inputs / "model.press", "-o", target, "--no-zip", "--json")
    assert code == 0, err
    assert "no accuracy is claimed" in err
    assert "recorded as unspecified" in err
    claims = json.loads(out)["manifest"]["claims"]
    assert (claims["accuracy"], claims["samples"]) == (None, None)
    assert not target.with_name("handoff.zip").exists()
    assert "not measured, no data set was given" in (target / "MODEL_CARD.md").read_text()
    assert failures(target) == []
    assert failures(target, data_dir=inputs / "data") == ["accuracy"]


def test_a_model_that_says_nothing_of_its_input_takes_arrays_only(tmp_path, call, capsys):
    write_artifact(tmp_path / "foreign.press", small_model())
    code, _, err = call("bundle", tmp_path / "foreign.press", "-o", tmp_path / "handoff")
    assert code == 0, err
    np.save(tmp_path / "x.npy", np.zeros((2, 2, 6, 6), np.float32))
    code, found, _ = classified(capsys, tmp_path / "handoff", tmp_path / "x.npy")
    assert code == 0
    assert {entry["top"][0]["label"][:6] for entry in found} == {"class "}
    np.save(tmp_path / "x.npy", np.zeros((6, 6), np.uint8))
    code, _, err = classified(capsys, tmp_path / "handoff", tmp_path / "x.npy")
    assert code == 1
    assert "the manifest does not say how images become input" in one_line(err)


def test_the_data_set_says_how_images_become_input_where_the_model_does_not(inputs, tmp_path, call):
    write_artifact(tmp_path / "foreign.press", classifier({}))
    data = ["--dataset", "cifar10", "--data-dir", inputs / "data"]
    code, out, err = call("bundle", tmp_path / "foreign.press", "-o", tmp_path / "h", *data, "--json")
    assert code == 0, err
    assert "taken from cifar10" in err
    assert json.loads(out)["manifest"]["contract"]["normalisation"]["mean"] == list(MEAN)
    assert call("bundle", tmp_path / "foreign.press", "-o", tmp_path / "i", *data[2:])[0] == 1


def test_existing_bundles_are_kept_without_overwrite(handoff, inputs, call):
    before = (handoff / "manifest.json").read_bytes()
    arguments = ["bundle", inputs / "model.press", "-o", handoff, "--no-zip"]
    code, _, err = call(*arguments)
    assert code == 1
    assert "pass --overwrite" in one_line(err)
    assert (handoff / "manifest.json").read_bytes() == before
    assert call(*arguments, "--overwrite")[0] == 0
    assert (handoff / "manifest.json").read_bytes() != before


def test_a_bundle_that_fails_leaves_nothing(inputs, tmp_path, call):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test_batch.bin").write_bytes(b"short")
    good = ["bundle", inputs / "model.press", "-o", tmp_path / "out" / "handoff"]
    for more, message in (
        (["--data-dir", tmp_path / "data"], "truncated"),
        (["--data-dir", tmp_path / "nowhere"], "does not exist"),
    ):
        code, _, err = call(*good, *more)
        assert code == 1
        assert message in err.splitlines()[-1]
        assert not list((tmp_path / "out").glob("*"))
        assert not list((tmp_path / "out").glob(".*"))


def test_a_target_that_can_be_no_bundle_is_one_line(inputs, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for target, message in {
        ".": "a folder of its own",
        "/": "a folder of its own",
        "n" * 300: "too long",
    }.items():
        for more in ([], ["--no-zip"]):
            code, _, err = call("bundle", inputs / "model.press", "-o", target, *more)
            assert code == 1
            assert message in one_line(err)
    assert not list(tmp_path.iterdir())


def test_a_name_too_long_for_the_archive_or_the_file_to_verify_is_one_line(inputs, tmp_path, call):
    for arguments in (
        ("bundle", inputs / "model.press", "-o", tmp_path / ("n" * 253)),
        ("verify", "n" * 300),
    ):
        code, _, err = call(*arguments)
        assert code == 1
        assert "too long" in one_line(err)


def test_a_folder_that_cannot_be_filled_is_named_and_not_its_archive(inputs, tmp_path, call, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_command, "seal_folder", full)
    code, _, err = call("bundle", inputs / "model.press", "-o", tmp_path / "h")
    assert code == 1
    assert f"{tmp_path / 'h'}: cannot be written: No space left" in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_an_input_rule_that_is_not_finite_is_refused(tmp_path, call):
    rule = json.dumps({**INPUT_RULE, "std": [float("nan")] * 3})
    write_artifact(tmp_path / "a.press", classifier({**METADATA, "modelpress.input": rule}))
    code, _, err = call("bundle", tmp_path / "a.press", "-o", tmp_path / "h", "--no-zip")
    assert code == 1
    assert "metadata modelpress.input are damaged" in err.splitlines()[-1]


def test_the_recipe_of_the_run_is_taken_along_without_local_paths(inputs, tmp_path):
    shutil.copy(inputs / "model.press", tmp_path / "model.press")
    recipe = {
        "data": {"dir": "/home/me/cifar"},
        "model": {"checkpoint": "/home/me/net.pt", "arch": "resnet20"},
    }
    facts = bundle_command.file_facts(tmp_path / "model.press")
    dataset = {"name": "cifar10", "fingerprint": "0" * 64}
    manifest = {"recipe": recipe, "dataset": dataset, "files": {"model.press": facts}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    found = bundle_command.run_beside(tmp_path / "model.press")
    assert found["recipe"] == {
        "data": {"dir": "cifar"},
        "model": {"checkpoint": "net.pt", "arch": "resnet20"},
    }
    assert found["dataset"] == dataset
    (tmp_path / "model.press").write_bytes(b"another")
    assert bundle_command.run_beside(tmp_path / "model.press") == {}
    for other in ("{", "[]", '{"files": []}'):
        (tmp_path / "manifest.json").write_text(other)
        assert bundle_command.run_beside(tmp_path / "model.press") == {}


def test_an_artifact_can_be_bundled_from_a_bundle(handoff, tmp_path, call):
    code, out, err = call("bundle", handoff / "model.press", "-o", tmp_path / "again", "--no-zip", "--json")
    assert code == 0, err
    assert json.loads(out)["manifest"]["dataset"] == manifest_of(handoff)["dataset"]


def test_a_model_for_other_classes_is_refused(inputs, tmp_path, call):
    write_artifact(tmp_path / "small.press", small_model())
    data = ["--dataset", "cifar10", "--data-dir", inputs / "data"]
    code, _, err = call("bundle", tmp_path / "small.press", "-o", tmp_path / "h", *data)
    assert code == 1
    assert "model has 3 outputs; cifar10 has 10 classes" in err


def test_samples_are_right_spread_over_the_classes_and_always_the_same():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 200)
    logits = np.eye(4, dtype=np.float32)[np.where(rng.random(200) < 0.7, labels, 0)]
    chosen = choose_samples(logits, labels, 10)
    np.testing.assert_array_equal(chosen, choose_samples(logits, labels, 10))
    assert len(set(chosen.tolist())) == 10
    np.testing.assert_array_equal(logits[chosen].argmax(axis=1), labels[chosen])
    assert sorted(np.bincount(labels[chosen], minlength=4)) == [2, 2, 3, 3]
    assert len(choose_samples(logits, labels, 1000)) == np.count_nonzero(logits.argmax(axis=1) == labels)


def test_bundling_needs_no_torch(inputs, tmp_path):
    arguments = ["bundle", inputs / "model.press", "-o", tmp_path / "h", "--data-dir", inputs / "data"]
    code = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'sklearn', 'PIL'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        f"sys.argv[1:] = {list(map(str, arguments))!r}\n"
        "from modelpress.toolkit.commands import cli\n"
        "from modelpress.toolkit.commands.bundle import claims\n"
        "claims.ROUNDS, claims.verify._MAX_SECONDS = 1, 0\n"
        "cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_twenty_real_images_are_classified_right(cifar10_folder, real_checkpoint, tmp_path, call, capsys):
    (tmp_path / "data").mkdir()
    records = np.fromfile(cifar10_folder / "cifar-10-batches-bin" / "test_batch.bin", np.uint8, 250 * 3073)
    records.tofile(tmp_path / "data" / "test_batch.bin")
    recipe = RECIPES / "resnet20-cifar10.yaml"
    assert call("pack", real_checkpoint, "-c", recipe, "-o", tmp_path / "model.press")[0] == 0
    target, data = tmp_path / "handoff", tmp_path / "data"
    arguments = ["bundle", tmp_path / "model.press", "-o", target, "--dataset", "cifar10", "--data-dir", data]
    code, _, err = call(*arguments)
    assert code == 0, err
    claims = manifest_of(target)["claims"]
    assert claims["accuracy"]["top1"] > 0.88
    files = [target / sample["file"] for sample in claims["samples"]["images"]]
    assert len(files) == 20
    code, found, _ = classified(capsys, target, *files)
    assert code == 0
    named = [path.stem.partition("-")[2] for path in files]
    assert [entry["top"][0]["label"] for entry in found] == named
    assert sorted(named) == sorted(CLASS_NAMES * 2)
    assert failures(target, data_dir=data) == []


@pytest.mark.parametrize("script", ["run.py", "verify.py"])
def test_a_reader_that_has_seen_enough_is_no_error(script, handoff):
    images = sorted(str(path) for path in (handoff / "samples").glob("*.png")) if script == "run.py" else []
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, str(handoff / script), *images],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1
