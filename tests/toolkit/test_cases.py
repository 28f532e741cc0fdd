"""Small models of the kinds that people have: all are packed, come back and compute the same."""

import lzma
import runpy
import sys

import numpy as np
import pytest

from modelpress.export.isolation.foreign import foreign_work
from modelpress.export.post_training.packing import WeightOptions
from modelpress.export.press.reading import read_artifact
from modelpress.export.quantized import QuantizedTensor
from modelpress.toolkit.model_files.packing import pack_onnx
from modelpress.toolkit.progress import Silent
from tests.helpers.cases import MIN_ELEMENTS, row_of, table
from tests.helpers.paths import SHARED

WRITER = SHARED / "cases" / "make_cases.py"
KEPT = {"int8_qdq", "type_bfloat16", "type_float8", "type_int4"}  # what comes in has few bits already
EXACT = {"on_a_grid", "qat_export_qdq", *KEPT}
# a softmax of logits that lie tens apart: steps of 8 bits around zero, a tenth wider than from minimum to maximum,
# move it by 0.012 to 0.026 of its spread over 40 draws of the input (0.012 to 0.025 with the narrower ones)
LARGEST_ERRORS = {"inf_attention_mask": 0.026}
AXES = {
    "weight_behind_identity": {"w": 1},
    "weight_behind_transpose": {"w": 0},
    "weight_behind_cast_half": {"w": 1},
    "weight_behind_reshape": {"w": 1},
    "weight_of_einsum": {"w": 1},
    "weight_in_constant_ir3": {"w": 0},
    "weight_float64": {"w.float32": 1},
    "contrib_op": {"w": 1},
    "local_function": {"w": 1},
    "loop_reads_outer_weight": {"w": 1},
    "if_weights_in_branches": {"w1": 0, "w2": 0},
    "lstm": {"W": 1, "R": 1},
    "gru": {"W": 1, "R": 1},
}

pytestmark = pytest.mark.skipif(not WRITER.is_file(), reason=f"needs {WRITER}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("cases")
    arguments, sys.argv = sys.argv, [str(WRITER), str(made)]
    try:
        runpy.run_path(str(WRITER))
    finally:
        sys.argv = arguments
    return made


def test_every_kind_is_packed_and_computes_the_same(folder, tmp_path):
    paths = [path for path in sorted(folder.glob("*.onnx")) if not path.stem.startswith("bad_")]
    with foreign_work():  # one process for all checks
        rows = [row_of(path, tmp_path) for path in paths]
    print(table(rows))
    assert len(rows) >= 35

    for row in rows:
        assert not row.wrong, row
        assert row.restored, row
        assert row.equal, row
        assert row.checked, row
        assert row.spread > 0.5, row  # the outputs depend on the inputs
        assert row.error < (1e-6 if row.case in EXACT else LARGEST_ERRORS.get(row.case, 0.02)), row
        squeezed = lzma.compress((folder / f"{row.case}.onnx").read_bytes(), preset=9 | lzma.PRESET_EXTREME)
        assert row.lossless < len(squeezed), row
        assert bool(row.coded) != (row.case in KEPT), row
        # one byte for a weight of four, or of two; what remains is the graph
        assert row.packed < 0.6 * row.original or row.case in KEPT, row


@pytest.mark.parametrize("case", AXES)
def test_hidden_weights_are_quantized_along_their_true_output_axis(case, folder, tmp_path):
    artifact = tmp_path / "m.press"
    pack_onnx(
        folder / f"{case}.onnx",
        artifact,
        WeightOptions(min_elements=MIN_ELEMENTS),
        allow_external_data=False,
        effort="fast",
        progress=Silent(),
    )
    coded = read_artifact(artifact).tensors
    axes = {
        name: tensor.channel_axis if np.ndim(tensor.scale) else None
        for name, tensor in coded.items()
        if isinstance(tensor, QuantizedTensor)
    }
    assert axes == AXES[case]
