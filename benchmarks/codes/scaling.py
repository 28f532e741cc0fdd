"""How coding scales with the size of a tensor: time per weight, and memory beyond input and output.

Each measurement runs in a process of its own, whose highest resident memory the operating system records:

    python -m modelpress.benchmarks.codes.scaling encode 1000000 default
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnx

from modelpress.benchmarks.measures.memory import highest_memory
from modelpress.export.choices import EFFORTS, Effort
from modelpress.export.errors import ModelError
from modelpress.export.isolation.fresh import fresh_process
from modelpress.export.press.reading import open_artifact
from modelpress.export.press.writing import write_artifact
from modelpress.export.quantized import QuantizedModel, QuantizedTensor

_T = TypeVar("_T")
_SEED = 0
_INPUTS, _TAPS = 64, 9
_SPARSITY = 0.7
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class ScalePoint:
    """One size.

    Attributes:
        seconds: To write and check an artifact of one tensor (`encode`), or to load it (`decode`); of processor
            time, the best of a few repetitions where these are quick.
        extra_mb: Highest memory less what the process held before, less the tensors, in 10**6 bytes.
    """

    direction: str
    effort: str
    n_weights: int
    seconds: float
    nanoseconds_per_weight: float
    extra_mb: float
    size_bytes: int

    @classmethod
    def of(
        cls, direction: str, effort: str, weight: QuantizedTensor, *, seconds: float, extra: int, size: int
    ) -> "ScalePoint":
        """From seconds, and memory and file size in bytes."""
        n = weight.codes.size
        return cls(direction, effort, n, seconds, 1e9 * seconds / n, extra / 1e6, size)


def synthetic_weight(n_weights: int) -> QuantizedTensor:
    """A seeded 3x3 convolution weight of about that many entries: 4 bits, 70 % zeros, bell-shaped levels."""
    # filled part by part, so that making it takes little memory beyond its own
    rows = max(round(n_weights / (_INPUTS * _TAPS)), 1)
    codes = np.empty(rows * _INPUTS * _TAPS, np.uint8)

    support = np.empty(codes.size, np.bool_)
    rng = np.random.default_rng(_SEED)
    for start in range(0, codes.size, _AT_ONCE):
        part = slice(start, min(start + _AT_ONCE, codes.size))
        count = part.stop - start
        kept = rng.random(count, np.float32) > _SPARSITY
        drawn = np.clip(np.rint(7.5 + 3 * rng.standard_normal(count, np.float32)), 0, 15)
        support[part], codes[part] = kept, drawn.astype(np.uint8) * kept

    shape = (rows, _INPUTS, 3, 3)
    return QuantizedTensor(
        codes.reshape(shape),
        bits=4,
        scale=np.float32(0.02),
        offset=np.float32(-0.15),
        support=support.reshape(shape),
    )


def scale_point(direction: str, n_weights: int, effort: Effort) -> ScalePoint:
    """Measure one size in a fresh process.

    Raises:
        ModelError: The process failed.
    """
    done = subprocess.run(
        fresh_process("-m", "modelpress.benchmarks.codes.scaling", direction, str(n_weights), effort),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ModelError(f"measuring {n_weights:,} weights failed: {done.stderr.strip().splitlines()[-1:]}")

    return ScalePoint(**json.loads(done.stdout))


def main() -> None:
    """Measure here and print JSON; see the module."""
    direction, n_weights, effort = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    chosen = next(known for known in EFFORTS if known == effort)
    with tempfile.TemporaryDirectory() as folder:
        point = (
            _encode(Path(folder), n_weights, chosen)
            if direction == "encode"
            else _decode(Path(folder), n_weights, chosen)
        )

    print(json.dumps(asdict(point)))


def _encode(folder: Path, n_weights: int, effort: Effort) -> ScalePoint:
    _write(folder, synthetic_weight(1 << 19), effort)  # compile, and load what is loaded once
    weight = synthetic_weight(n_weights)

    before = _resident(reset=True)
    # the first run tells the memory, the best of all the time
    seconds, size = _timed(lambda: _write(folder, weight, effort))
    tensors = _n_bytes(weight) + size  # it is decoded again and compared
    seconds = min([seconds, *_again(lambda: _write(folder, weight, effort), seconds)])

    return ScalePoint.of(
        "encode", effort, weight, seconds=seconds, extra=_resident() - before - tensors, size=size
    )


def _decode(folder: Path, n_weights: int, effort: Effort) -> ScalePoint:
    """The artifact is written by another process, so that this one's memory shows only the decoding."""
    path = folder / "model.press"
    script = (
        "import sys; from pathlib import Path; "
        "from modelpress.benchmarks.codes.scaling import _write, synthetic_weight; "
        "_write(Path(sys.argv[1]), synthetic_weight(int(sys.argv[2])), sys.argv[3])"
    )

    # a small one first, to be loaded before memory counts: the first load compiles and imports
    small = folder / "small"
    small.mkdir()
    for where, count in ((small, 1 << 19), (folder, n_weights)):
        subprocess.run(fresh_process("-c", script, str(where), str(count), effort), check=True)
    _load(small / "model.press")

    before = _resident(reset=True)
    seconds, weight = _timed(lambda: _load(path))
    size = path.stat().st_size
    extra = _resident() - before - _n_bytes(weight) - size
    seconds = min([seconds, *_again(lambda: _load(path), seconds)])

    return ScalePoint.of("decode", effort, weight, seconds=seconds, extra=extra, size=size)


def _load(path: Path) -> QuantizedTensor:
    with open_artifact(path) as artifact:
        (weight,) = artifact.model().tensors.values()
    assert isinstance(weight, QuantizedTensor)
    return weight


def _timed(function: Callable[[], _T]) -> tuple[float, _T]:
    began = time.process_time()
    result = function()
    return time.process_time() - began, result


def _again(function: Callable[[], object], first: float) -> list[float]:
    """The seconds of a few repetitions, where these are quick."""
    return [_timed(function)[0] for _ in range(min(4, int(2 / first)))]


def _write(folder: Path, weight: QuantizedTensor, effort: Effort) -> int:
    graph = onnx.ModelProto()
    return write_artifact(folder / "model.press", QuantizedModel(graph, {"w": weight}), effort=effort)


def _n_bytes(weight: QuantizedTensor) -> int:
    arrays: list[npt.NDArray[np.generic]] = [weight.codes]
    if weight.support is not None:
        arrays.append(weight.support)
    return sum(array.nbytes for array in arrays)


def _resident(*, reset: bool = False) -> int:
    """As `highest_memory`; 0 where it is unknown."""
    return highest_memory(reset=reset) or 0


if __name__ == "__main__":
    main()
