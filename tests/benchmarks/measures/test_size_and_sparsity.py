import numpy as np
import pytest

from modelpress.benchmarks.audits.fidelity import compare_logits
from modelpress.benchmarks.codes.ladder import stored_ladder
from modelpress.benchmarks.measures.size import size_record
from modelpress.benchmarks.measures.sparsity import sparsity_of, total_sparsity
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.benchmarks.subjects.running_weights import running_weights
from modelpress.benchmarks.suite import describe_model
from modelpress.export.errors import InputError
from modelpress.export.onnx_flavours import emit
from modelpress.export.press.writing import write_artifact
from tests.helpers.models import small_model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_artifact(folder / "model.press", small_model())
    (folder / "model.onnx").write_bytes(emit(small_model(), flavour="float").SerializeToString())
    return [folder / "model.onnx", folder / "model.press"]


def test_size_record_adds_up_to_the_file(files):
    model = open_model(files[1])
    size = size_record(model.artifact, model.stored, ladder=stored_ladder(model.stored))
    parts = size.model_dump(exclude={"ladder"})
    assert sum(parts.values()) == files[1].stat().st_size
    assert size.ladder["float32"] == 4 * (72 + 12)
    assert size.ladder["int codes"] == 72 + 12
    assert size.ladder["as stored"] <= min(
        size.ladder[k] for k in ("bit-packed", "Huffman", "CSR + Huffman", "kernel masks + Huffman")
    )


def test_sparsity_counts_exact_zeros_of_running_weights(files):
    model = small_model()
    weights = running_weights(open_model(files[1]).onnx_model)
    assert list(weights) == ["conv.weight", "fc.weight"]
    zeros = sum(int((t.dequantize() == 0).sum()) for t in model.quantized().values())
    assert total_sparsity(weights) == pytest.approx(zeros / 84)
    assert sparsity_of(np.zeros(0)) == 0.0


def test_both_formats_describe_the_same_weights(files):
    onnx, press = (describe_model(open_model(path)) for path in files)
    assert onnx.sparsity == press.sparsity
    assert [layer.weights for layer in onnx.layers] == [layer.weights for layer in press.layers]
    assert press.size_bytes == files[1].stat().st_size
    assert press.layers[0].bits == 4
    assert onnx.layers[0].bits is None
    assert sum(press.layers[0].grid_counts) == round(72 * (1 - press.layers[0].sparsity))


def test_differing_labels_count_only_where_logits_are_no_tie():
    reference = np.array([[1.0, 0.0], [1.0, 0.99995], [1.0, 0.0]], np.float32)
    candidate = np.array([[1.0, 0.0], [0.99995, 1.0], [0.0, 1.0]], np.float32)
    record = compare_logits(reference, candidate, reference_name="a", candidate_name="b")
    assert record.label_agreement == pytest.approx(1 / 3)
    assert record.differing_labels == 1
    assert record.largest_difference == 1.0


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x08"])
def test_files_that_are_no_model_are_refused(tmp_path, content):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="neither a .press artifact nor an ONNX model"):
        open_model(path)
