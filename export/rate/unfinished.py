"""What a search has come to so far, in a folder, so that the same search goes on where it was interrupted.

Each layer at each price is a file of its own, which appears whole or not at all: what is lost is one layer. A file that
cannot be read counts as not there, and its layer is rounded again.
"""

import json
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.export.files.atomic import write_atomically
from modelpress.export.lazy_tensors import dense_of
from modelpress.export.post_training.calibration import Feed
from modelpress.export.quantized import QuantizedModel

Arrays = Mapping[str, npt.NDArray[Any]]
_KEY = "search.json"


class Unfinished:
    """The folder of one search.

    Args:
        folder: Made where it is not there. What it holds of another search is removed.
        fingerprint: Of everything that the results depend on, as `fingerprint_of` gives it.

    Raises:
        InputError: The folder cannot be written.

    Attributes:
        goes_on: Whether results of this search were there.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.goes_on = _fingerprint_in(folder) == fingerprint
        if self.goes_on:
            return

        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made: {error.strerror or error}") from error
        write_atomically(folder / _KEY, json.dumps({"fingerprint": fingerprint}).encode())

    def arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Arrays that were kept under a name; none where there are none, or they are damaged."""
        try:
            with np.load(self._path(name, "npz"), allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return {}

    def keep_arrays(self, name: str, arrays: Arrays) -> None:
        """Keep arrays under a name.

        Raises:
            InputError: The folder is full or gone.
        """
        with BytesIO() as buffer:
            np.savez(buffer, allow_pickle=False, **arrays)
            write_atomically(self._path(name, "npz"), buffer.getvalue())

    def layer(self, price: float, number: int) -> dict[str, npt.NDArray[Any]]:
        """What was kept of a layer at a price."""
        return self.arrays(_layer(price, number))

    def keep_layer(self, price: float, number: int, arrays: Arrays) -> None:
        """Keep what a layer has become at a price."""
        self.keep_arrays(_layer(price, number), arrays)

    def figures(self, price: float) -> dict[str, float]:
        """Numbers that were kept of a price."""
        try:
            found = json.loads(self._path(float(price).hex(), "json").read_bytes())
            return {str(key): float(value) for key, value in found.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}

    def keep_figures(self, price: float, figures: Mapping[str, float]) -> None:
        """Keep numbers of a price, in place of those before."""
        write_atomically(self._path(float(price).hex(), "json"), json.dumps(dict(figures)).encode())

    def remove(self) -> None:
        """The search has come to its end."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str, ending: str) -> Path:
        return self.folder / f"{name}.{ending}"


def fingerprint_of(model: QuantizedModel, feeds: Iterable[Feed], facts: Mapping[str, object]) -> str:
    """A hash of a model in float, of calibration inputs, and of all else that a search depends on.

    Example:
        >>> import onnx
        >>> empty = QuantizedModel(onnx.ModelProto(), {})
        >>> fingerprint_of(empty, [], {"effort": "max"}) == fingerprint_of(empty, [], {"effort": "fast"})
        False
    """
    state = sha256(model.graph.SerializeToString(deterministic=True))
    state.update(json.dumps(dict(facts), sort_keys=True, default=str).encode())
    for name in model.tensors:
        _add(state, name, np.asarray(dense_of(model.tensors, name)))
    for feed in feeds:
        for name, value in feed.items():
            _add(state, name, np.asarray(value))
    return state.hexdigest()


def _add(state: Any, name: str, array: npt.NDArray[Any]) -> None:
    state.update(f"{name} {array.dtype} {array.shape} ".encode())
    state.update(np.ascontiguousarray(array).data)


def _layer(price: float, number: int) -> str:
    return f"{float(price).hex()}-{number}"


def _fingerprint_in(folder: Path) -> str:
    try:
        return str(json.loads((folder / _KEY).read_bytes())["fingerprint"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ""
