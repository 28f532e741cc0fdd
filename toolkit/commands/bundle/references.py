"""Reference tensors of a bundle: inputs, and the outputs that a port must compute from them."""

from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path

import numpy as np
import onnxruntime as ort

from modelpress.benchmarks.subjects.given import Array
from modelpress.export.errors import InputError
from modelpress.export.handoff.bundle_files import verify
from modelpress.export.handoff.manifest import ReferenceCall, ReferenceClaim
from modelpress.export.runtime import run_feed
from modelpress.export.safe_text import for_terminal

FOLDER, TABLE = "reference", "reference/tensors.txt"
_MOST_BYTES = 32 << 20  # of all tensors
Values = Mapping[str, Array]


def reference_claim(
    folder: Path,
    session: ort.InferenceSession,
    in_float: ort.InferenceSession | None,
    calls: Sequence[Values],
    *,
    source: str,
) -> ReferenceClaim:
    """Run calls and write their tensors, and a table of them for programs that read no JSON.

    Args:
        folder: Of the bundle.
        session: Of `model.onnx`.
        in_float: Of the network in float, where `model.onnx` computes in integers.
        calls: Inputs by name; as many of them are taken as fit into 32 MB.
        source: Where they come from, in words.

    Raises:
        InputError: Not even one fits, or outputs are no arrays of numbers that other programs can be given.
    """
    written = _Written(folder)
    records: list[ReferenceCall] = []
    error = size = 0.0
    for feed in calls:
        found = _outputs(session, feed)
        exact = {} if in_float is None else _outputs(in_float, feed)
        if not written.takes([*feed.values(), *found.values(), *exact.values()]):
            break

        number = len(records)
        names = {
            kind: {
                name: written.add(number, kind, k, name, array)
                for k, (name, array) in enumerate(part.items())
            }
            for kind, part in (("input", feed), ("output", found), ("in float", exact))
        }
        records.append(
            ReferenceCall(inputs=names["input"], outputs=names["output"], in_float=names["in float"])
        )
        for name, values in exact.items():
            more = verify.squares(found[name], values)
            error, size = error + more[0], size + more[1]

    if not records:
        raise InputError(f"one call takes more than {_MOST_BYTES:,} bytes")
    tolerance = verify.OUTPUT_TOLERANCE if in_float is None else verify.INTEGER_TOLERANCE
    written.finish(tolerance)
    return ReferenceClaim(source=source, noise=sqrt(error / size) if size else 0.0, calls=records)


def _outputs(session: ort.InferenceSession, feed: Values) -> dict[str, Array]:
    found = {name: np.asarray(value) for name, value in run_feed(session, feed).items()}
    for name, value in found.items():
        if value.dtype.kind not in "biuf":
            raise InputError(f"output {name} is no array of numbers")
    return found


class _Written:
    """The tensors written so far."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._bytes = folder, 0
        self._lines: list[str] = []

    def takes(self, arrays: Sequence[Array]) -> bool:
        """Whether these fit too."""
        self._bytes += sum(array.nbytes for array in arrays)
        return self._bytes <= _MOST_BYTES

    def add(self, call: int, kind: str, position: int, name: str, array: Array) -> str:
        """Write one, little-endian and row by row; returns its name in the bundle."""
        file = f"{FOLDER}/{call}-{kind.replace(' ', '-')}-{position}.npy"
        (self._folder / FOLDER).mkdir(exist_ok=True)
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        np.save(self._folder / file, plain, allow_pickle=False)

        shape = ",".join(map(str, array.shape))
        self._lines.append("\t".join([str(call), kind, array.dtype.name, shape, file, for_terminal(name)]))
        return file

    def finish(self, tolerance: float) -> None:
        """Write the table."""
        head = [
            f"tolerance\t{tolerance:g}",
            "# call, kind, type, shape, file, name; inputs and outputs in the order of the model",
        ]
        (self._folder / TABLE).write_text("\n".join([*head, *self._lines]) + "\n", encoding="utf-8")
