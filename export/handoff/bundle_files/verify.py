#!/usr/bin/env python3
"""Check this bundle and measure again what it claims.

    python verify.py                      files, inputs and outputs, reference tensors, sample images
    python verify.py --data-dir DIR       accuracy too, on CIFAR-10's binary version
    python verify.py --data FILE.npz      accuracy too, on test examples of yours: inputs, and labels or targets
    python verify.py --data FOLDER        accuracy too, on test images: a folder per class, or a CSV file (pillow)
    python verify.py --latency            latency too, judged within a factor
    python verify.py --strict             exit code 3 where something was not checked

Prints a line per claim: held, FAILED, or not checked, and why. Exits with 1 if one failed. Needs numpy and
onnxruntime, and cannot read model.press: `modelpress verify` compares its weights with those of model.onnx. Machines
differ, so latency is shown beside the claim, and judged only where asked for.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import math
import os
import platform
import statistics
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
ACCURACY_TOLERANCE = 0.001  # 0.1 points
OUTPUT_TOLERANCE, INTEGER_TOLERANCE = 1e-3, 0.05  # of the largest number of an output; the latter as below
PROBABILITY_TOLERANCE = 0.02  # processors may round integer products differently
METRIC_TOLERANCE = 0.005  # of figures that are no fractions, as a share of them
INTERVAL_TOLERANCE = 1e-6
TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)"}
LATENCY_FACTOR = 3.0
MAX_IMAGES = 10**9  # more than that is no data set
MAX_BATCH, MAX_THREADS = 1024, 1024  # more than that is not run, whatever is claimed
_CIFAR_RECORD = 1 + 3 * 32 * 32  # label, then R, G, B planes
_Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
_WARM_UP, _MIN_CALLS, _MAX_SECONDS = 2, 10, 1.0


class Failed(Exception):  # noqa: N818 - reads as the fact it states
    """A claim does not hold."""


class NotChecked(Exception):  # noqa: N818 - as above
    """A claim cannot be checked here."""


WORDS = {True: "held", False: "FAILED", None: "not checked"}


class Finding(NamedTuple):
    """Outcome of one check: held, failed, or (None) not checked."""

    check: str
    holds: bool | None
    detail: str

    def __str__(self) -> str:
        return f"{WORDS[self.holds]:<11}  {printable(self.check)}: {printable(' '.join(self.detail.split()))}"


Images = Callable[[str, Optional[Path]], "tuple[Any, Any]"]  # of a data set, by its name and folder


def main(arguments: list[str] | None = None) -> int:
    """Print the outcome of every check; returns the exit code."""
    parser = argparse.ArgumentParser(description="Check this bundle and measure again what it claims.")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="measure accuracy on CIFAR-10 in DIR")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="SOURCE",
        help="measure accuracy on these: an .npz file, a folder per class, or a CSV file of paths and labels",
    )
    parser.add_argument(
        "--latency",
        type=float,
        nargs="?",
        const=LATENCY_FACTOR,
        metavar="FACTOR",
        help=f"fail where the median takes more than FACTOR times the claimed time (default: {LATENCY_FACTOR:g})",
    )
    parser.add_argument("--strict", action="store_true", help="exit code 3 where something was not checked")
    options = parser.parse_args(arguments)

    found = []
    folder = Path(__file__).resolve().parent
    read = None if options.data is None else lambda name, _: read_own(options.data, folder)
    for finding in findings(folder, options.data_dir, factor=options.latency, read=read):
        print(finding, flush=True)
        found.append(finding)

    beyond = Finding(
        "model.press", None, "this script cannot read it; `modelpress verify` compares its weights"
    )
    print(beyond)
    found.append(beyond)
    print(summary(found))
    return exit_code(found, strict=options.strict)


def summary(found: list[Finding]) -> str:
    """How many of each outcome, in one line."""
    return ", ".join(
        f"{sum(finding.holds is holds for finding in found)} {word}" for holds, word in WORDS.items()
    )


def exit_code(found: list[Finding], *, strict: bool) -> int:
    """0 where nothing failed, 1 where something did; if `strict`, 3 where something was not checked."""
    if any(finding.holds is False for finding in found):
        return 1
    return 3 if strict and any(finding.holds is None for finding in found) else 0


def printable(text: str) -> str:
    """A text that cannot steer a terminal: what is in a bundle may come from anywhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def findings(
    folder: Path,
    data_dir: Path | None,
    *,
    factor: float | None = None,
    timed: bool = True,
    read: Images | None = None,
) -> Iterator[Finding]:
    """Every check of a bundle, in order.

    The latency is measured only if `timed`, and judged only with a `factor`. `read` gives the test images and labels of
    a data set, as `read_images` does.
    """
    bundle = BundleFolder(folder)
    yield finding("files", bundle.check_files)
    yield finding("manifest", bundle.load)
    if bundle.session is None:
        return
    yield finding("input and output", bundle.check_contract)
    yield finding("reference", bundle.check_reference)
    yield finding("samples", bundle.check_samples)
    claims = bundle.manifest.get("claims")
    claims = claims if isinstance(claims, dict) else {}
    if claims.get("metric") is None:
        yield finding("accuracy", lambda: bundle.check_accuracy(data_dir, read))
    else:
        yield finding("metric", lambda: bundle.check_metric(data_dir, read))
    yield finding("latency", lambda: bundle.check_latency(factor, timed=timed))


def finding(check: str, measure: Callable[[], tuple[bool | None, str]]) -> Finding:
    """Run one check; whatever goes wrong in it is a failure of the bundle."""
    try:
        return Finding(check, *measure())
    except Failed as failure:
        return Finding(check, False, str(failure))
    except NotChecked as reason:
        return Finding(check, None, str(reason))
    except ImportError as error:
        return Finding(check, False, f"{error}; {sys.executable} -m pip install -r requirements.txt")
    except Exception as error:  # a damaged file may lead to any
        return Finding(check, False, f"{type(error).__name__}: {error}")


class BundleFolder:
    """A bundle's folder; each check returns what it found, or raises."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = {}
        self.session: Any = None

    def check_files(self) -> tuple[bool | None, str]:
        """The files are those of the manifest, byte for byte, and so is `SHA256SUMS`."""
        listed = parse_manifest((self.folder / MANIFEST).read_bytes())["files"]
        present = set(files_below(self.folder))
        digests = {}
        for name in sorted({*listed, MANIFEST}):
            if name not in present:
                raise Failed(f"{name} is missing")
            digests[name] = sha256(self.folder / name)
            if name != MANIFEST and digests[name] != listed[name]["sha256"]:
                raise Failed(f"{name} was changed")
            if name != MANIFEST and (self.folder / name).stat().st_size != listed[name]["size_bytes"]:
                raise Failed(f"{name} has another size than claimed")
        for name in sorted(present - set(digests) - {SUMS}):
            raise Failed(f"{name} is not listed in {MANIFEST}")
        sums = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
        if (self.folder / SUMS).read_bytes() != sums.encode():
            raise Failed(f"{SUMS} does not fit; it or {MANIFEST} was changed")
        return True, f"{len(present)} files, SHA-256 as listed"

    def load(self) -> tuple[bool | None, str]:
        """The manifest is of a known schema and the model loads."""
        import onnxruntime

        manifest = parse_manifest((self.folder / MANIFEST).read_bytes())
        if manifest["kind"] != "modelpress bundle" or manifest["schema_version"] not in (1, 2):
            raise Failed("is no manifest of schema 1 or 2; use the verify.py that came with it")
        self.manifest = manifest
        self.session = open_session((self.folder / "model.onnx").read_bytes())
        return True, f"{manifest['name']}, loads in onnxruntime {onnxruntime.__version__}"

    def check_contract(self) -> tuple[bool | None, str]:
        """Names, shapes and types are the model's, and so are labels and normalisation where it knows them."""
        contract, model = self.manifest["contract"], self.session
        inputs, outputs = model.get_inputs(), model.get_outputs()
        for end, nodes in (("inputs", inputs), ("outputs", outputs)):
            ports, own = self.manifest.get(end), [port_of(node) for node in nodes]
            if ports is not None and ports != own:
                raise Failed(f"the manifest says {ports}, the {end} of the model are {own}")
        if contract is None:
            if model.get_modelmeta().custom_metadata_map != self.manifest["metadata"]:
                raise Failed("the metadata are not the model's")
            return True, f"{', '.join(n.name for n in inputs)} to {', '.join(n.name for n in outputs)}"
        if len(inputs) != 1 or len(outputs) != 1:
            raise Failed(f"the model has {len(inputs)} inputs and {len(outputs)} outputs")
        facts = model.get_modelmeta().custom_metadata_map
        claimed = [contract[f"{end}_{key}"] for end in ("input", "output") for key in ("name", "shape")]
        found = [inputs[0].name, shape_of(inputs[0]), outputs[0].name, shape_of(outputs[0])]
        if claimed != found or TYPES.get(contract["input_dtype"]) != inputs[0].type:
            raise Failed(f"the manifest says {claimed}, the model {found} of {inputs[0].type}")
        if facts != self.manifest["metadata"]:
            raise Failed("the metadata are not the model's")
        labels = json.loads(facts.get("modelpress.classes", "null"))
        if labels is not None and labels != contract["labels"]:
            raise Failed(f"the labels are not the model's: {', '.join(labels)}")
        rule = json.loads(facts.get("modelpress.input", "null"))
        scale = 1 / 255
        if rule is None and "modelpress.values" in facts:
            rule, scale = json.loads(facts["modelpress.values"]), 1.0
        if rule is not None and contract["normalisation"] != {
            "scale": scale,
            "mean": rule["mean"],
            "std": rule["std"],
        }:
            raise Failed(f"the normalisation is not the model's: mean {rule['mean']}, std {rule['std']}")
        self._check_normalisation(contract)
        classes = found[3][-1] if len(found[3]) > 1 else 1
        if contract["labels"] and len(contract["labels"]) != classes:
            raise Failed(f"{len(contract['labels'])} labels for {classes} classes")
        return True, f"{found[0]} {found[1]} to {found[2]} {found[3]}"

    def _check_normalisation(self, contract: dict[str, Any]) -> None:
        """A mean and a standard deviation for every channel, with which pixels become finite numbers."""
        rule = contract["normalisation"]
        if rule is None:
            return
        n_axes = len(contract["input_shape"])
        if (
            n_axes < 2
            or (rule["scale"] != 1 and n_axes != 4)
            or not (len(rule["mean"]) == len(rule["std"]) == contract["input_shape"][1])
        ):
            raise Failed(f"the normalisation does not fit input of shape {contract['input_shape']}")
        if not (rule["scale"] > 0 and all(deviation > 0 for deviation in rule["std"])):
            raise Failed(f"the normalisation divides by {rule['std']}, scale {rule['scale']}")

    def check_reference(self) -> tuple[bool | None, str]:
        """The model computes the outputs that lie beside the inputs they belong to."""
        claim = self.manifest["claims"].get("reference")
        if claim is None:
            return True, "none is claimed"
        integers = self.manifest["flavour"].startswith("int8")
        tolerance, worst = INTEGER_TOLERANCE if integers else OUTPUT_TOLERANCE, 0.0
        error = size = 0.0
        for number, call in enumerate(claim["calls"]):
            feed = {name: self.array(file) for name, file in call["inputs"].items()}
            found = self.session.run(list(call["outputs"]), feed)
            for (name, file), output in zip(call["outputs"].items(), found):
                distance = relative_distance(self.array(file), output, f"call {number}, {name}")
                worst = max(worst, distance)
                if not distance <= tolerance:
                    raise Failed(f"call {number}: {name} is off by {distance:.2g} of its largest number")
                if name in call["in_float"]:
                    more = squares(self.array(file), self.array(call["in_float"][name]))
                    error, size = error + more[0], size + more[1]
        noise = math.sqrt(error / size) if size else 0.0
        if not abs(noise - claim["noise"]) <= 1e-6 * max(1.0, noise):
            raise Failed(
                f"claimed to be off by {claim['noise']:.2%} of the float network, the files say {noise:.2%}"
            )
        words = f"; {noise:.2%} off the float network" if size else ""
        return True, f"{len(claim['calls'])} calls, outputs within {worst:.1g} of those claimed{words}"

    def array(self, file: str) -> Any:
        """An array of numbers among the files of the bundle."""
        import numpy

        if file not in self.manifest["files"]:
            raise Failed(f"{file} is not listed")
        return numpy.load(self.folder / file, allow_pickle=False)

    def check_samples(self) -> tuple[bool | None, str]:
        """Every sample is classified as claimed."""
        claim = self.manifest["claims"]["samples"]
        if claim is None:
            return True, "none are claimed"
        right, shape = 0, shape_of(self.session.get_inputs()[0])[1:]
        for sample in claim["images"]:
            if sample["file"] not in self.manifest["files"]:
                raise Failed(f"{sample['file']} is not listed")
            pixels = read_png(self.folder / sample["file"], shape)  # (C, H, W)
            probabilities = softmax(self.logits(pixels[None])[0])
            top = int(probabilities.argmax())
            if top != sample["predicted"]:
                raise Failed(f"{sample['file']} is classified as {top}, claimed is {sample['predicted']}")
            difference = abs(float(probabilities[top]) - sample["probability"])
            if not difference <= PROBABILITY_TOLERANCE:  # so that NaN fails
                raise Failed(
                    f"{sample['file']}: probability {probabilities[top]:.4f}, claimed {sample['probability']:.4f}"
                )
            right += top == sample["label"]
        if not abs(right / len(claim["images"]) - claim["agreement"]) <= 1e-9:
            raise Failed(
                f"{right} of {len(claim['images'])} have their label, claimed {claim['agreement']:.2%}"
            )
        return True, f"{len(claim['images'])} images classified as claimed, {right} of them right"

    def check_accuracy(self, data_dir: Path | None, read: Images | None = None) -> tuple[bool | None, str]:
        """Top-1 on the very test images of the claim; what cannot be whatever the images are fails without them."""
        claim = self.manifest["claims"]["accuracy"]
        if claim is None:
            return data_dir is None, "none is claimed"
        words = f"claimed {claim['top1']:.2%} of {claim['n_images']:,} test images of {claim['dataset']}"
        check_plausible(claim, words)
        images, labels = self._test_examples(claim, words, data_dir, read)
        right = sum(
            int((self.logits(images[i : i + 250]).argmax(axis=1) == labels[i : i + 250]).sum())
            for i in range(0, len(labels), 250)
        )
        measured = right / len(labels)
        if len(labels) != claim["n_images"] or not abs(measured - claim["top1"]) <= ACCURACY_TOLERANCE:
            raise Failed(f"{words}; measured {measured:.2%} of {len(labels):,}")
        return True, f"{words}; measured {measured:.2%}"

    def check_metric(self, data_dir: Path | None, read: Images | None = None) -> tuple[bool | None, str]:
        """The figure of merit on the very test examples of the claim."""
        claim = self.manifest["claims"]["metric"]
        scale, unit = (100, " %") if claim["fraction"] else (1, "")
        words = (
            f"claimed {claim['metric']} {scale * claim['value']:.4g}{unit} on {claim['n_examples']:,} test examples of "
            f"{claim['dataset']}"
        )
        low, high = claim["interval"]
        if not (low <= claim["value"] <= high and 0 < claim["n_examples"] <= MAX_IMAGES):
            raise Failed(f"{words}, whose 95 % interval is {claim['interval']}")
        if not claim["fingerprint"].strip("0"):
            raise Failed(f"{words}, whose fingerprint is that of no examples")
        if claim["metric"] not in METRICS:
            raise NotChecked(f"{words}; this script does not know that metric")

        inputs, targets = self._test_examples(claim, words, data_dir, read)
        measured = METRICS[claim["metric"]](self._outputs(inputs), targets)
        allowed = ACCURACY_TOLERANCE if claim["fraction"] else METRIC_TOLERANCE * abs(claim["value"])
        if len(targets) != claim["n_examples"] or not abs(measured - claim["value"]) <= allowed:
            raise Failed(f"{words}; measured {scale * measured:.4g}{unit} on {len(targets):,}")
        return True, f"{words}; measured {scale * measured:.4g}{unit}"

    def _test_examples(
        self, claim: dict[str, Any], words: str, data_dir: Path | None, read: Images | None
    ) -> tuple[Any, Any]:
        """Inputs and targets that have the fingerprint of a claim: those named, or those in the bundle."""
        inside = self.manifest["claims"].get("test_data")
        try:
            if read is None and data_dir is None and inside is not None:
                held = self._archive(inside)
                inputs, targets = held["inputs"], held["targets"]
            else:
                inputs, targets = (read or read_images)(claim["dataset"], data_dir)
        except NotChecked as reason:
            raise NotChecked(f"{words}; {reason}") from reason
        inputs, targets = self._as_claimed(inputs, targets)
        if hashlib.sha256(inputs.tobytes() + targets.tobytes()).hexdigest() != claim["fingerprint"]:
            what = "images" if "n_images" in claim else "examples"
            raise Failed(
                f"{words}; {data_dir or claim['dataset']} holds other test {what} ({len(targets):,})"
            )
        return inputs, targets

    def _as_claimed(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """In the types that the fingerprint is of: pixels as they are, whole numbers int64, all others float32."""
        import numpy

        pixels = inputs.dtype == numpy.uint8 and inputs.ndim == 4
        kind = inputs.dtype if pixels else numpy.float32 if inputs.dtype.kind == "f" else numpy.int64
        labels = self.manifest["contract"].get("task", "classification") in ("classification", "sequence")
        wanted = targets.astype(numpy.int64 if labels else numpy.float32)
        if not labels and wanted.ndim == 1:
            wanted = wanted[:, None]
        return numpy.ascontiguousarray(inputs.astype(kind)), numpy.ascontiguousarray(wanted)

    def _archive(self, name: str) -> dict[str, Any]:
        """The arrays of a listed `.npz` file."""
        import numpy

        if name not in self.manifest["files"]:
            raise Failed(f"{name} is not listed")
        with zipfile.ZipFile(self.folder / name) as stored:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in stored.infolist()):
                raise Failed(f"{name} is compressed: it might unpack to any size")
        with numpy.load(self.folder / name, allow_pickle=False) as held:
            return {key: held[key] for key in held.files}

    def check_latency(self, factor: float | None, *, timed: bool = True) -> tuple[bool | None, str]:
        """Median time of a call, with the claimed batch size and number of threads."""
        import numpy
        import onnxruntime

        claim, node = self.manifest["claims"]["latency"], self.session.get_inputs()[0]
        if claim is None:
            return True, "none is claimed"
        for key, most in (("batch", MAX_BATCH), ("threads", MAX_THREADS)):
            if not isinstance(claim[key], int) or not 1 <= claim[key] <= most:
                raise Failed(f"{key} is {claim[key]}; expected 1 to {most}")
        if not 0 < claim["p50_ms"] <= claim["p90_ms"]:
            raise Failed(
                f"half of the calls take up to {claim['p50_ms']} ms, 90 % up to {claim['p90_ms']} ms"
            )
        if not timed:
            raise NotChecked(
                f"claimed {claim['p50_ms']:.3f} ms on {claim['machine']}; not measured, give --latency"
            )
        session = open_session((self.folder / "model.onnx").read_bytes(), threads=claim["threads"])
        if self.manifest["contract"] is None:
            reference = self.manifest["claims"].get("reference")
            if reference is None:
                raise NotChecked("there is no reference to feed the model with")
            feed = {name: self.array(file) for name, file in reference["calls"][0]["inputs"].items()}
        else:
            shape = [claim["batch"], *node.shape[1:]]
            made = numpy.random.default_rng(0).standard_normal(shape, numpy.float32)
            whole = self.manifest["contract"]["input_dtype"] == "int64"  # 0 is in every table
            feed = {node.name: numpy.zeros(shape, numpy.int64) if whole else made}
        measured = median_ms(lambda: session.run(None, feed))
        words = (
            f"batch {claim['batch']}, {claim['threads']} thread: claimed {claim['p50_ms']:.3f} ms on "
            f"{claim['machine']}; here {measured:.3f} ms ({platform.machine()}, onnxruntime "
            f"{onnxruntime.__version__})"
        )
        if factor is None:
            return None, words
        if not measured <= factor * claim["p50_ms"]:
            raise Failed(f"{words}: more than {factor:g} times the claim")
        return True, f"{words}: within {factor:g} times the claim"

    def _outputs(self, inputs: Any) -> Any:
        """Output for examples of any number."""
        import numpy

        parts = [self.logits(inputs[i : i + 250]) for i in range(0, len(inputs), 250)]
        return numpy.concatenate(parts)

    def logits(self, images: Any) -> Any:
        """Output for uint8 images of shape ``(n, C, H, W)``, or for other values as the contract describes them."""
        import numpy

        contract = self.manifest["contract"]
        rule, node = contract["normalisation"], self.session.get_inputs()[0]
        step = len(images) if isinstance(contract["input_shape"][0], str) else contract["input_shape"][0]
        if rule is None:
            kind = numpy.dtype(contract["input_dtype"])
            return numpy.concatenate(
                [
                    self.session.run(None, {node.name: images[i : i + step].astype(kind)})[0]
                    for i in range(0, len(images), step)
                ]
            )
        std = numpy.asarray(rule["std"])
        along = (slice(None), *(None,) * (images.ndim - 2))
        factor = (rule["scale"] / std).astype(numpy.float32)[along]
        shift = (-numpy.asarray(rule["mean"]) / std).astype(numpy.float32)[along]
        batches = (images[i : i + step].astype(numpy.float32) for i in range(0, len(images), step))
        return numpy.concatenate(
            [self.session.run(None, {node.name: batch * factor + shift})[0] for batch in batches]
        )


def micro_f1(outputs: Any, targets: Any) -> float:
    """Of all labels together; an output above 0 says that a label is there."""
    positive, true = outputs > 0, targets > 0.5
    found = int(positive.sum()) + int(true.sum())
    return 2 * int((positive & true).sum()) / found if found else 1.0


def mean_absolute_error(outputs: Any, targets: Any) -> float:
    """Over all numbers of all examples."""
    import numpy

    return float(numpy.abs(outputs.reshape(targets.shape).astype(numpy.float64) - targets).mean())


def places_right(outputs: Any, targets: Any) -> float:
    """Share of the places of all sequences, those without a class (-100) left out."""
    counts = targets != -100
    return int(((outputs.argmax(axis=2) == targets) & counts).sum()) / max(int(counts.sum()), 1)


METRICS: dict[str, Callable[[Any, Any], float]] = {
    "micro F1": micro_f1,
    "mean absolute error": mean_absolute_error,
    "places right": places_right,
}


def check_plausible(claim: dict[str, Any], words: str) -> None:
    """A claim of accuracy that no images can make true fails."""
    top1, n_images = claim["top1"], claim["n_images"]
    if not 0 < n_images <= MAX_IMAGES:
        raise Failed(f"{words}; a data set has up to {MAX_IMAGES:,}")
    if not abs(top1 * n_images - round(top1 * n_images)) <= 1e-6:
        raise Failed(f"{words}, which is no whole number of images")
    bounds = wilson_interval(top1, n_images)
    if not all(abs(a - b) <= INTERVAL_TOLERANCE for a, b in zip(bounds, claim["interval"])):
        raise Failed(f"{words}, whose 95 % interval is {bounds}, not {tuple(claim['interval'])}")
    if not claim["fingerprint"].strip("0"):
        raise Failed(f"{words}, whose fingerprint is that of no images")


def wilson_interval(fraction: float, n: int) -> tuple[float, float]:
    """95 % confidence interval of a fraction measured on n independent images."""
    centre = (fraction + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    reach = _Z95 * math.sqrt(fraction * (1 - fraction) / n + _Z95**2 / (4 * n * n)) / (1 + _Z95**2 / n)
    return centre - reach, centre + reach


def parse_manifest(data: bytes) -> dict[str, Any]:
    """The document; NaN and infinity are no numbers in JSON, and no claim could be judged by them."""
    document: dict[str, Any] = json.loads(data, parse_float=finite, parse_constant=finite)
    return document


def finite(text: str) -> float:
    """The number that a text stands for."""
    value = float(text)
    if not math.isfinite(value):
        raise Failed(f"{MANIFEST} holds {text}; expected finite numbers")
    return value


def files_below(folder: Path) -> Iterator[str]:
    """Names of all files; a link or a special file is a failure."""
    for path, folders, names in os.walk(folder):
        for name in (*folders, *names):
            entry = Path(path, name)
            shown = entry.relative_to(folder).as_posix()
            if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
                raise Failed(f"{shown} is a link or no regular file")
            if name in names:
                yield shown


def sha256(path: Path) -> str:
    """Digest of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def open_session(model: bytes, threads: int = 0) -> Any:
    """The model on the CPU; 0 threads leave the choice to the runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def shape_of(node: Any) -> list[int | str]:
    """Shape of an input or output, ``"N"`` for a batch of any size."""
    return [size if isinstance(size, int) else "N" for size in node.shape]


def port_of(node: Any) -> dict[str, Any]:
    """Name, type as numpy calls it, and axes of an input or output; a word for an axis of any length."""
    inner = node.type[len("tensor(") : -1] if node.type.startswith("tensor(") else node.type
    dtype = {"float": "float32", "double": "float64"}.get(inner, inner)
    shape = [axis if isinstance(axis, int) else axis or "?" for axis in node.shape]
    return {"name": node.name, "dtype": dtype, "shape": shape}


def relative_distance(expected: Any, found: Any, where: str) -> float:
    """Largest difference of two arrays over the largest number expected; numbers that are not finite must be equal."""
    import numpy

    if expected.shape != found.shape or expected.dtype != found.dtype:
        raise Failed(f"{where}: is {found.dtype} {found.shape}, expected {expected.dtype} {expected.shape}")
    finite_ones = numpy.isfinite(expected.astype(numpy.float64))
    if not numpy.array_equal(expected[~finite_ones], found[~finite_ones]):
        raise Failed(f"{where}: numbers that are not finite differ")
    left, right = (array[finite_ones].astype(numpy.float64) for array in (expected, found))
    if not left.size:
        return 0.0
    return float(numpy.abs(left - right).max() / max(float(numpy.abs(left).max()), 1e-30))


def squares(found: Any, exact: Any) -> tuple[float, float]:
    """Sums of squares of the difference, and of what is exact; where both are finite."""
    import numpy

    left, right = found.astype(numpy.float64).ravel(), exact.astype(numpy.float64).ravel()
    both = numpy.isfinite(left) & numpy.isfinite(right)
    difference = left[both] - right[both]
    return float(difference @ difference), float(right[both] @ right[both])


def median_ms(call: Callable[[], object]) -> float:
    """Median time of a call in milliseconds, after a warm-up."""
    for _ in range(_WARM_UP):
        call()
    samples: list[float] = []
    end = time.perf_counter() + _MAX_SECONDS
    while len(samples) < _MIN_CALLS or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        samples.append(1000 * (time.perf_counter() - began))
    return statistics.median(samples)


def softmax(logits: Any) -> Any:
    """Probabilities of one row of logits."""
    import numpy

    exponentials = numpy.exp(logits.astype(numpy.float64) - logits.max())
    return exponentials / exponentials.sum()


def read_png(path: Path, shape: list[int | str]) -> Any:
    """A PNG file as the samples are written: 8 bits, grey or RGB, no row filters; uint8 of shape ``(C, H, W)``.

    A file of another shape than expected fails before it is unpacked: a few bytes may claim to be gigabytes.
    """
    import numpy

    data = path.read_bytes()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise Failed(f"{path.name} is no PNG file")
    header, parts, at = b"", [], 8
    while at + 12 <= len(data):
        (size,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        content = data[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            header = content
        elif kind == b"IDAT":
            parts.append(content)
        at += 12 + size
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", header)
    channels = {0: 1, 2: 3}.get(colour, 0)
    if depth != 8 or not channels or any(rest):
        raise Failed(f"{path.name} is no PNG file as samples are written: 8 bits, grey or RGB")
    if [channels, height, width] != list(shape) or not height * width:
        raise Failed(f"{path.name} has shape {[channels, height, width]}, the model takes {list(shape)}")
    n_bytes = height * (1 + width * channels)
    unpacked = zlib.decompressobj().decompress(b"".join(parts), n_bytes)
    if len(unpacked) != n_bytes:
        raise Failed(f"{path.name} is truncated")
    rows = numpy.frombuffer(unpacked, numpy.uint8).reshape(height, -1)
    if rows[:, 0].any():
        raise Failed(f"{path.name} uses row filters")
    return rows[:, 1:].reshape(height, width, channels).transpose(2, 0, 1)


def read_images(name: str, data_dir: Path | None) -> tuple[Any, Any]:
    """Test images and labels of a data set, where this script can read it."""
    if name != "cifar10":
        raise NotChecked("this script reads cifar10 only; `modelpress verify` may know more")
    if data_dir is None:
        raise NotChecked("not measured, give --data-dir DIR")
    return read_cifar10(data_dir)


def read_own(path: Path, bundle: Path) -> tuple[Any, Any]:
    """Test examples of somebody's own: arrays, or images in files."""
    if path.suffix.lower() == ".npz":
        return read_npz(path)
    sys.dont_write_bytecode = True  # the files of a bundle are those of its manifest
    reader = importlib.import_module("image_data")
    if not reader.is_source(path):
        raise NotChecked(f"{path} is no .npz file, no folder of images and no CSV file of paths and labels")
    try:
        inputs, targets = reader.read(path, parse_manifest((bundle / MANIFEST).read_bytes()))
    except reader.Problem as problem:
        raise NotChecked(str(problem)) from problem
    return inputs, targets


def read_npz(path: Path) -> tuple[Any, Any]:
    """Inputs and targets of an `.npz` file: one array called labels or targets, and one other."""
    import numpy

    with numpy.load(path, allow_pickle=False) as held:
        names = [name for name in held.files if name not in ("split", "classes")]
        targets = [name for name in names if name in ("labels", "targets")]
        inputs = [name for name in names if name not in targets]
        if len(targets) != 1 or len(inputs) != 1:
            raise Failed(f"{path} holds {', '.join(held.files)}; expected inputs, and labels or targets")
        return held[inputs[0]], held[targets[0]]


def read_cifar10(folder: Path) -> tuple[Any, Any]:
    """Test images, uint8 ``(n, 3, 32, 32)``, and labels, int64, of CIFAR-10's binary version."""
    import numpy

    for path in (folder / "cifar-10-batches-bin" / "test_batch.bin", folder / "test_batch.bin"):
        if path.is_file():
            data = numpy.fromfile(path, numpy.uint8)
            if not data.size or data.size % _CIFAR_RECORD:
                raise Failed(f"{path} is truncated")
            records = data.reshape(-1, _CIFAR_RECORD)
            return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(numpy.int64)
    raise Failed(f"{folder} holds no test_batch.bin of CIFAR-10's binary version")


if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
