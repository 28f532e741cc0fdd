"""Dead channels taken out of a model, and the smaller one accepted only if ONNX Runtime computes the same with it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import ModelpressError
from modelpress.export.graphs.channels.random_feed import random_feed
from modelpress.export.graphs.channels.shrinking import without_dead_channels
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import open_decoded, run_feed

LARGEST_DIFFERENCE = 1e-5  # of the range of an output


@dataclass(frozen=True)
class Shrinking:
    """What became of the dead channels of a model.

    Attributes:
        model: The smaller model, or the one that was given.
        words: What was done, or why nothing was.
    """

    model: QuantizedModel
    words: str


def shrunk_where_equal(model: QuantizedModel) -> Shrinking:
    """Take dead channels out; where outputs for random inputs then differ by more than rounding, leave all as it is.

    Inside `foreign_work` its process computes.
    """
    shrunk = without_dead_channels(model)
    if not shrunk.changed:
        return Shrinking(model, "no channel can be removed: each is needed by a layer that reads it")

    try:
        difference = _largest_difference(model, shrunk.model)
    except ModelpressError as error:
        return Shrinking(model, f"channels stay: the smaller model could not be compared: {error}")
    if not difference <= LARGEST_DIFFERENCE:
        return Shrinking(
            model, f"channels stay: without them outputs differ by {difference:.1e} of their range"
        )
    words = sizes_in_words(shrunk.parameters, shrunk.macs, difference)
    return Shrinking(shrunk.model, f"channels removed: {words}")


def sizes_in_words(parameters: tuple[int, int], macs: tuple[int, int], difference: float) -> str:
    """What taking channels out has done, before and after.

    Example:
        >>> sizes_in_words((1000, 600), (5000, 2000), 1e-7)
        'parameters 1,000 → 600, multiplications 5,000 → 2,000; outputs differ by 1.0e-07'
    """
    (had, has), (did, does) = parameters, macs
    return f"parameters {had:,} → {has:,}, multiplications {did:,} → {does:,}; outputs differ by {difference:.1e}"


def _largest_difference(before: QuantizedModel, after: QuantizedModel) -> float:
    """Of any output over its range, the largest; infinite where outputs are not finite or of other shapes."""
    feed = random_feed(before)
    expected, found = (run_feed(open_decoded(model), feed) for model in (before, after))
    return max((_difference(expected[name], found[name]) for name in expected), default=0.0)


def _difference(expected: npt.NDArray[np.generic], found: npt.NDArray[np.generic]) -> float:
    """
    Example:
        >>> _difference(np.array([0.0, 2.0]), np.array([0.0, 1.0]))
        0.5
    """
    if expected.shape != found.shape:
        return float("inf")
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(expected, found) else float("inf")

    largest = float(np.abs(expected).max(initial=0.0))
    apart = float(np.abs(np.subtract(expected, found, dtype=np.float64)).max(initial=0.0))
    if not np.isfinite(largest + apart):
        return float("inf")
    return apart / largest if largest else apart
