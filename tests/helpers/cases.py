"""Small models of many kinds, packed and run: a line for each, as a table.

    python -m tests.helpers.cases FOLDER

Every `.onnx` file of the folder is packed twice, with its weights in 8 bits and without loss; both are decoded and run
beside the original, on two draws of inputs.
"""

import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import onnxruntime

from modelpress.benchmarks.audits.loss import loss_against
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.export.onnx_flavours import emit
from modelpress.export.post_training.packing import WeightOptions
from modelpress.export.press.reading import read_artifact
from modelpress.export.runtime import open_decoded
from modelpress.toolkit.model_files.packing import pack_onnx
from modelpress.toolkit.model_files.verifying import verification
from modelpress.toolkit.progress import Silent

MIN_ELEMENTS = 400  # of a weight: the smallest kernels of these models have 432
FREE_AXIS, TOKENS = 8, 60
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        case: Its name.
        original: Bytes of the file.
        packed: Bytes with weights in 8 bits.
        lossless: Bytes without loss.
        coded: Tensors in codes.
        exact: Tensors that 8 bits give back bit for bit, of all that are compared.
        wrong: Tensors that must be equal and are not, in either artifact.
        restored: Whether the lossless artifact gives back every tensor bit for bit.
        spread: How far outputs for other inputs lie apart, in standard deviations of the outputs.
        error: How far outputs with 8 bits lie apart from the original's, likewise: root of the mean square.
        equal: Whether outputs of the lossless artifact are the original's, but for the last digits.
        checked: Whether `verify` finds every step of the artifact with codes to hold, what runs it included.
    """

    case: str
    original: int
    packed: int
    lossless: int
    coded: int
    exact: str
    wrong: tuple[str, ...]
    restored: bool
    spread: float
    error: float
    equal: bool
    checked: bool

    def cells(self):
        """As text."""
        values = (getattr(self, field.name) for field in fields(self) if field.name != "wrong")
        return [
            f"{v:.4f}" if isinstance(v, float) else f"{v:,}" if type(v) is int else str(v) for v in values
        ]


def row_of(path, folder):
    """Pack a model into a folder, and tell what came of it."""
    found, packed, lossless = {}, folder / "codes.press", folder / "lossless.press"
    for artifact, options in (
        (packed, WeightOptions(min_elements=MIN_ELEMENTS)),
        (lossless, WeightOptions(lossless=True, min_elements=MIN_ELEMENTS)),
    ):
        report = pack_onnx(
            path, artifact, options, allow_external_data=False, effort="default", progress=Silent()
        )
        model = read_artifact(artifact)
        found[artifact] = report, loss_against(model, open_model(path).onnx_model), session_of(model)

    original = onnxruntime.InferenceSession(path, quiet(), providers=["CPUExecutionProvider"])
    draws = [feeds(original, seed) for seed in range(2)]
    expected, coded, exact = (
        [flat(session.run(None, draw)) for draw in draws]
        for session in (original, found[packed][2], found[lossless][2])
    )
    scale = np.std(expected[0])
    report, loss, _ = found[packed]
    return Row(
        case=path.stem,
        original=report.source_bytes,
        packed=report.size_bytes,
        lossless=found[lossless][0].size_bytes,
        coded=report.quantized_tensors,
        exact=f"{loss.n_equal}/{loss.n_tensors}",
        wrong=loss.wrong + found[lossless][1].wrong,
        restored=found[lossless][1].n_equal == found[lossless][1].n_tensors,
        spread=float(np.std(expected[0] - expected[1]) / scale),
        error=float(
            max(np.sqrt(np.mean((a - b) ** 2)) for a, b in zip(expected, coded, strict=True)) / scale
        ),
        equal=all(
            np.allclose(a, b, rtol=1e-4, atol=1e-5 * scale) for a, b in zip(expected, exact, strict=True)
        ),
        checked=all(step.holds for step in verification(packed, against=path)),
    )


def quiet():
    """Options of a session that logs no warnings."""
    made = onnxruntime.SessionOptions()
    made.log_severity_level = 4
    return made


def session_of(model):
    """Both ways to run an artifact must load."""
    open_decoded(model)
    return onnxruntime.InferenceSession(
        emit(model, flavour="float").SerializeToString(), quiet(), providers=["CPUExecutionProvider"]
    )


def feeds(session, seed):
    """Random values of the declared types and shapes; free axes get one length, integers stay small."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for value in session.get_inputs():
        shape = [n if isinstance(n, int) else FREE_AXIS for n in value.shape]
        dtype = DTYPES[value.type]
        drawn[value.name] = np.asarray(
            rng.integers(0, TOKENS, shape) if np.dtype(dtype).kind in "ib" else rng.standard_normal(shape)
        ).astype(dtype)
    return drawn


def flat(outputs):
    """All outputs one after the other."""
    return np.concatenate([np.asarray(output, np.float64).reshape(-1) for output in outputs])


def table(rows):
    """Rows as text, a line each."""
    titles = [field.name for field in fields(Row) if field.name != "wrong"]
    lines = [titles, *(row.cells() for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(titles))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        print(table([row_of(path, Path(scratch)) for path in sorted(Path(sys.argv[1]).glob("*.onnx"))]))
