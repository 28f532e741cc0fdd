#!/usr/bin/env python3
"""Run the model beside this script: classify images, or compute the outputs of any other model.

    python run.py photo.jpg other.png [--top 5] [--json]
    python run.py images.npy
    python run.py inputs.npz -o outputs.npz                 (a model that is no classifier)
    python run.py photo.jpg --full                          (where the bundle has model-exits.onnx)

Where there is a ``model-exits.onnx``, it answers: easy images leave it early. ``--full`` runs the whole network.

An image file (BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP) is turned upright, converted to the model's colours
(transparency on white), resized so that it just covers the model's input, and cropped to its centre. An ``.npy``
file holds pixels (uint8; ``(H, W)``, ``(H, W, C)`` or ``(N, H, W, C)``), or input that is ready (float32; with or
without the batch axis). A model that is no classifier takes ``.npz`` files with an array for each input, named as in
its manifest.

Needs numpy and onnxruntime; pillow for image files (the samples apart) and for pixels of another size than the model's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FORMATS = (
    "BMP",
    "GIF",
    "JPEG",
    "PNG",
    "PPM",
    "TIFF",
    "WEBP",
)  # of images; rare ones only widen what can go wrong
HERE = Path(__file__).resolve().parent
EXITS = "model-exits.onnx"


class Problem(Exception):  # noqa: N818 - reads as what it is
    """What the user can mend, in one line."""


def main(arguments: list[str] | None = None) -> int:
    """Print the top classes of every image; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run the model beside this script.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="image files, .npy or .npz arrays")
    parser.add_argument(
        "-o", "--output", metavar="FILE.npz", help="write the outputs of a model that classifies nothing"
    )
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes to print (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--full", action="store_true", help="leave the network by no early exit")
    options = parser.parse_args(arguments)

    try:
        if options.top < 1:
            raise Problem("--top: expected at least 1")

        model = Model(HERE, full=options.full)
        if model.contract is None:
            return model.compute([Path(file) for file in options.files], options.output)
        if options.output is not None:
            raise Problem("--output is for models that classify nothing")

        found = []
        for file in options.files:
            for name, batch in inputs_of(Path(file), model.contract):
                found.append({"image": name, **model.answer(batch, options.top)})
                if not options.json:
                    show(found[-1])

        if options.json:
            print(json.dumps(found, indent=2))
    except Problem as problem:
        print(f"run.py: error: {printable(' '.join(str(problem).split()))}", file=sys.stderr)
        return 1

    return 0


def show(found: dict[str, Any]) -> None:
    """One image and its classes."""
    print(printable(found["image"]))
    if "exit" in found:
        print(f"  left after {printable(found['exit'])}")
    if "output" in found:
        print(f"  {json.dumps(found['output'])}")
    for entry in found.get("top", []):
        print(f"  {100 * entry['probability']:6.2f} %  {printable(entry['label'])}")


def printable(text: str) -> str:
    """A text that cannot steer a terminal: labels may come from anywhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Model:
    """The model of a bundle and what its manifest says of input and output."""

    def __init__(self, folder: Path, *, full: bool = False) -> None:
        name = "model.onnx"
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            self.contract: Any = manifest["contract"]  # None for models that are no classifiers
            if self.contract is not None and not full and (folder / EXITS).is_file():
                name = EXITS
            data = (folder / name).read_bytes()
        except OSError as error:
            raise Problem(f"{error.filename}: cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Problem(f"{folder / 'manifest.json'} is damaged: {error}") from error

        needed("numpy")  # before onnxruntime, which says less clearly that it is missing
        runtime = needed("onnxruntime")
        options = runtime.SessionOptions()

        options.log_severity_level = 3
        try:
            self.session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its classes of errors are not public
            raise Problem(f"onnxruntime {runtime.__version__} cannot load {name}: {error}") from error
        self.exits = exits_of(self.session) if name == EXITS else []

    def compute(self, paths: list[Path], target: str | None) -> int:
        """Print what comes out for each file of inputs, and write that of the last one; returns the exit code."""
        numpy = needed("numpy")
        for path in paths:
            arrays = read_arrays(path)
            wanted = [node.name for node in self.session.get_inputs()]
            if sorted(arrays) != sorted(wanted):
                raise Problem(f"{path}: holds {', '.join(arrays)}; the model takes {', '.join(wanted)}")
            try:
                outputs = self.session.run(None, arrays)
            except Exception as error:  # as above
                raise Problem(f"{path}: the model rejects these inputs: {error}") from error

            named = dict(zip([node.name for node in self.session.get_outputs()], outputs))
            for name, array in named.items():
                span = f", {array.min():g} to {array.max():g}" if array.size else ""
                print(f"{path}: {printable(name)}: {array.dtype} {array.shape}{span}")

        if target is not None:
            try:
                numpy.savez(target, **named)
            except OSError as error:
                raise Problem(f"{target}: cannot be written: {error.strerror}") from error
        return 0

    def answer(self, batch: Any, n_top: int) -> dict[str, Any]:
        """The most probable classes of one image, shape ``(1, ...)``; of other tasks, what the model gives."""
        try:
            outputs = self.session.run(None, {self.contract["input_name"]: batch})
            output = outputs[0][0]
        except Exception as error:  # as above
            raise Problem(f"the model rejects input of shape {batch.shape}: {error}") from error
        if self.contract.get("task", "classification") != "classification":
            return {"output": output.tolist()}
        left = {"exit": self.exits[int(outputs[1][0])]} if self.exits else {}
        return {**left, "top": self.classes(output, n_top)}

    def classes(self, logits: Any, n_top: int) -> list[dict[str, Any]]:
        """The most probable ones, by the logits of one image."""
        probabilities, labels = softmax(logits), self.contract["labels"]
        return [
            {
                "label": labels[index] if labels else f"class {index}",
                "index": int(index),
                "probability": float(probabilities[index]),
            }
            for index in (-probabilities).argsort(kind="stable")[:n_top]
        ]


def exits_of(session: Any) -> list[str]:
    """Where each exit is, the last one at the end, as the model's metadata say."""
    try:
        facts = json.loads(session.get_modelmeta().custom_metadata_map["modelpress.exits"])
        return [exit["after"] for exit in facts["exits"] if exit["threshold"] is not None] + [
            "the last block"
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Problem(f"{EXITS} does not say where its exits are: {error}") from error


def softmax(logits: Any) -> Any:
    """Probabilities of one row of logits."""
    numpy = needed("numpy")
    exponentials = numpy.exp(logits.astype(numpy.float64) - logits.max())
    return exponentials / exponentials.sum()


def inputs_of(path: Path, contract: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and model input, float32 of shape ``(1, ...)``, of each image in a file."""
    if not path.is_file():
        raise Problem(f"{path}: " + ("is no file" if path.exists() else "does not exist"))
    if path.suffix.lower() != ".npy":
        yield str(path), normalised(pixels_of_image(path, contract), contract)
        return

    array = read_array(path)
    shape = tuple(contract["input_shape"][1:])
    array, raw = as_taken(array, contract)
    kind = contract["input_dtype"]
    if array.dtype == kind and array.shape[-len(shape) :] == shape and array.ndim - len(shape) in (0, 1):
        batches = array.reshape((-1, 1, *shape))
        if raw:
            batches = (standardised(batch, contract) for batch in batches)
    elif array.dtype == "uint8" and 2 <= array.ndim <= 4:
        images = array if array.ndim == 4 else array[None]
        batches = (normalised(fitted(pixels, contract, str(path)), contract) for pixels in images)
    else:
        raise Problem(
            f"{path}: holds {array.dtype} of shape {array.shape}; expected pixels (uint8; HW, HWC or NHWC), "
            f"or {kind} of shape {shape} or (N, {str(shape)[1:]}"
        )

    for index, batch in enumerate(batches):
        yield f"{path}[{index}]", batch


def as_taken(array: Any, contract: dict[str, Any]) -> tuple[Any, bool]:
    """An array in the type that the model takes, and whether its values are yet to be normalised."""
    rule = contract["normalisation"]
    raw = rule is not None and rule["scale"] == 1
    if contract["input_dtype"] == "int64" and array.dtype.kind in "iu":
        return array.astype("int64"), False
    return (array.astype("float32") if raw and array.dtype.kind in "iuf" else array), raw


def standardised(values: Any, contract: dict[str, Any]) -> Any:
    """``(value - mean) / std`` along the second axis of ``(1, ...)``."""
    numpy, rule = needed("numpy"), contract["normalisation"]
    std, along = numpy.asarray(rule["std"]), (slice(None), *(None,) * (values.ndim - 2))
    factor, shift = (
        (1 / std).astype(numpy.float32),
        (-numpy.asarray(rule["mean"]) / std).astype(numpy.float32),
    )
    return values * factor[along] + shift[along]


def read_arrays(path: Path) -> dict[str, Any]:
    """All arrays of an ``.npz`` file; nothing in it is executed."""
    numpy = needed("numpy")
    try:
        with numpy.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # as below; an .npy file is no archive
        raise Problem(f"{path}: cannot be read as an .npz archive of arrays: {error}") from error


def read_array(path: Path) -> Any:
    """The array of an ``.npy`` file; nothing in it is executed."""
    numpy = needed("numpy")
    try:
        array = numpy.load(path, allow_pickle=False)
    except Exception as error:  # a damaged header may lead to any, to one that claims too much memory too
        raise Problem(f"{path}: cannot be read as an array: {error}") from error

    if not isinstance(array, numpy.ndarray):
        raise Problem(f"{path}: cannot be read as an array: it is an archive of several")

    return array


def image_size(contract: dict[str, Any]) -> tuple[int, int, int]:
    """Channels, height and width of the model's input; only for models whose manifest says how to fill it."""
    if contract["normalisation"] is None or len(contract["input_shape"]) != 4:
        raise Problem(
            "the manifest does not say how images become input; give an .npy file of float32, shape "
            f"{tuple(contract['input_shape'][1:])}"
        )

    channels, height, width = contract["input_shape"][1:]
    return channels, height, width


def normalised(pixels: Any, contract: dict[str, Any]) -> Any:
    """``(pixel * scale - mean) / std`` of uint8 ``(H, W, C)``, as float32 ``(1, C, H, W)``."""
    numpy, rule = needed("numpy"), contract["normalisation"]
    std = numpy.asarray(rule["std"])
    factor = (rule["scale"] / std).astype(numpy.float32)
    shift = (-numpy.asarray(rule["mean"]) / std).astype(numpy.float32)
    planes = pixels.transpose(2, 0, 1).astype(numpy.float32)
    return (planes * factor[:, None, None] + shift[:, None, None])[None]


def pixels_of_image(path: Path, contract: dict[str, Any]) -> Any:
    """An image file as uint8 of shape ``(H, W, C)``, of the model's size and colours."""
    plain = pixels_of_sample(path, image_size(contract))
    if plain is not None:
        return plain
    pillow, orient = needed("PIL.Image", "pillow"), needed("PIL.ImageOps", "pillow")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with pillow.open(path, formats=FORMATS) as file:
                image = orient.exif_transpose(file)
                image.load()
    except Exception as error:  # every format raises its own kinds
        raise Problem(f"{path}: cannot be read as an image: {error}") from error

    return fitted_image(image, contract, str(path))


def pixels_of_sample(path: Path, size: tuple[int, int, int]) -> Any:
    """A PNG file written as the samples are, and of the model's size: 8 bits, no row filters; None for any other."""
    channels, height, width = size
    data, parts, at = path.read_bytes(), [], 8
    form = struct.pack(">IIBB", width, height, 8, {1: 0, 3: 2}.get(channels, 255))
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[16:26] != form or any(data[26:29]):
        return None
    while at + 12 <= len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        if kind == b"IDAT":
            parts.append(data[at + 8 : at + 8 + length])
        elif kind not in (b"IHDR", b"IEND"):  # transparency, turned images: for pillow
            return None
        at += 12 + length

    numpy, n_bytes = needed("numpy"), height * (1 + width * channels)
    try:
        unpacked = zlib.decompressobj().decompress(b"".join(parts), n_bytes)
    except zlib.error:
        return None
    if len(unpacked) != n_bytes:
        return None
    rows = numpy.frombuffer(unpacked, numpy.uint8).reshape(height, -1)
    return None if rows[:, 0].any() else rows[:, 1:].reshape(height, width, channels)


def fitted(pixels: Any, contract: dict[str, Any], name: str) -> Any:
    """Pixels of shape ``(H, W)`` or ``(H, W, C)`` in the model's size and colours; pillow only where they differ."""
    channels, height, width = image_size(contract)
    if pixels.shape == (height, width, channels):
        return pixels

    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]

    if 0 in pixels.shape or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)):
        raise Problem(f"{name}: an image has shape {pixels.shape}; expected (H, W), (H, W, 3) or (H, W, 4)")

    return fitted_image(needed("PIL.Image", "pillow").fromarray(pixels), contract, name)


def fitted_image(image: Any, contract: dict[str, Any], name: str) -> Any:
    """A pillow image, converted, resized to cover the input and cropped to the centre; says so where it resizes."""
    channels, height, width = image_size(contract)
    if image.mode[0] in "IF":
        raise Problem(f"{name}: has pixels of mode {image.mode}; expected 8 bits per colour")
    if channels not in (1, 3):
        raise Problem(
            f"{name}: the model takes {channels} channels, images are converted to 1 or 3; give an .npy file of "
            f"shape {(height, width, channels)}"
        )

    pillow = needed("PIL.Image", "pillow")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)

    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        ratio = max(width / image.width, height / image.height)
        size = (max(width, round(image.width * ratio)), max(height, round(image.height * ratio)))
        print(
            f"{name}: {image.width}x{image.height} resized to {size[0]}x{size[1]}, cropped to {width}x{height}",
            file=sys.stderr,
        )
        image = centre_of_resized(image, size, (width, height))

    return needed("numpy").asarray(image).reshape(height, width, channels)


def centre_of_resized(image: Any, size: tuple[int, int], crop: tuple[int, int]) -> Any:
    """The centre, of size `crop`, of an image resized to `size`; all else, which may be huge, is not computed."""
    spans, reached = [], []
    for old, new, kept in zip(image.size, size, crop):  # along x, along y
        first = (new - kept) // 2
        span = (first * old / new, (first + kept) * old / new)
        reach = math.ceil(old / new) + 1  # of the bilinear filter, in pixels of the image
        spans.append(span)
        reached.append((max(0, math.floor(span[0]) - reach), min(old, math.ceil(span[1]) + reach)))

    (left, right), (top, bottom) = reached
    box = (spans[0][0] - left, spans[1][0] - top, spans[0][1] - left, spans[1][1] - top)
    bilinear = needed("PIL.Image", "pillow").BILINEAR

    return image.crop((left, top, right, bottom)).resize(crop, bilinear, box=box)


def needed(module: str, package: str = "") -> Any:
    """Import a module, or say how to install it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        requirements = HERE / "requirements.txt"
        raise Problem(
            f"{package or module} is missing ({error}): {sys.executable} -m pip install -r {requirements}"
        ) from error


if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
