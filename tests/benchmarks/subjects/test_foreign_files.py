"""Files that are not ours, or no longer what they were."""

import numpy as np
import onnx
import pytest

from modelpress.benchmarks.audits.fidelity import compare_logits
from modelpress.benchmarks.measures.latency import Contestant, measure_latency
from modelpress.benchmarks.measures.sparsity import total_sparsity
from modelpress.benchmarks.records import LatencyRecord, Results
from modelpress.benchmarks.report.page import render_report
from modelpress.benchmarks.subjects.feeding import plan_inputs
from modelpress.benchmarks.subjects.given import NOTHING
from modelpress.benchmarks.subjects.inputs import input_specs
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.benchmarks.subjects.running_weights import running_weights
from modelpress.benchmarks.suite import describe_model
from modelpress.export.errors import InputError, ModelError
from modelpress.export.onnx_flavours import emit
from modelpress.export.press.writing import write_artifact
from tests.helpers.foreign_onnx import NODE, foreign, saved
from tests.helpers.models import small_model


@pytest.fixture
def artifact(tmp_path):
    write_artifact(tmp_path / "model.press", small_model())
    return tmp_path / "model.press"


def test_logits_that_are_not_finite_never_agree():
    good, bad = np.zeros((2, 3), np.float32), np.full((2, 3), np.nan, np.float32)
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(ModelError, match="NaN or infinity"):
            compare_logits(*pair, reference_name="a", candidate_name="b")


def test_tensors_in_other_files_are_not_followed(tmp_path):
    path = tmp_path / "external.onnx"
    model = emit(small_model(), flavour="float")
    onnx.save(model, path, save_as_external_data=True, location="external.data", size_threshold=0)
    with pytest.raises(InputError, match="lie in another file"):
        open_model(path)


def test_sparsity_is_unknown_where_no_weights_are_found(tmp_path):
    nodes = [NODE("Transpose", ["x"], ["t"]), NODE("MatMul", ["x", "t"], ["y"])]
    path = saved(foreign(nodes, {}, y=("N", "N")), tmp_path / "no-weights.onnx")
    record = describe_model(open_model(path))
    assert record.sparsity is None
    assert "0.00 %" not in render_report([Results(environment={}, models=[record])])


def test_sparsity_is_that_of_dequantized_weights(tmp_path):
    arrays = {"q": np.int8([[0, 1], [2, 0], [0, 0], [3, 4]]), "s": np.float32(0.1), "z": np.int8(0)}
    nodes = [NODE("DequantizeLinear", list(arrays), ["w"]), NODE("MatMul", ["x", "w"], ["y"])]
    path = saved(foreign(nodes, arrays, y=("N", 2)), tmp_path / "dequantized.onnx")
    assert describe_model(open_model(path)).sparsity == 0.5


def test_weights_in_constant_nodes_count(tmp_path):
    model = emit(small_model(), flavour="float")
    weight = model.graph.initializer[0]
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [weight.name], value=weight))
    del model.graph.initializer[0]
    onnx.save(model, tmp_path / "c.onnx")
    expected = total_sparsity(running_weights(emit(small_model(), flavour="float")))
    assert describe_model(open_model(tmp_path / "c.onnx")).sparsity == expected


@pytest.mark.parametrize(
    "damage",
    [
        lambda model: model.graph.node[0].input.pop(),
        lambda model: setattr(model.graph.initializer[0], "raw_data", b"\0"),
        lambda model: setattr(model.graph.initializer[0], "data_type", 99),
        lambda model: model.graph.node[0].ClearField("op_type"),
    ],
)
def test_damaged_onnx_files_are_an_input_error(tmp_path, damage):
    model = emit(small_model(), flavour="float")
    del model.graph.node[0].input[2]
    damage(model)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError):
        describe_model(open_model(tmp_path / "m.onnx"))


def test_a_folder_named_like_ours_is_not_imported(artifact, tmp_path, monkeypatch):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("raise RuntimeError('foreign')")
    monkeypatch.chdir(tmp_path)
    plan = plan_inputs("m", input_specs(open_model(artifact).onnx_model), NOTHING, (1,))
    assert measure_latency([Contestant(artifact, plan)], threads=(1,), rounds=1)


def test_names_with_mathematics_are_drawn_as_they_are(artifact):
    record = describe_model(open_model(artifact))
    record.path = "_a$\\x$.press"
    record.latency = [LatencyRecord(batch=1, threads=1, p50_ms=1, p90_ms=1, p99_ms=1, min_ms=1, samples=9)]
    assert "<svg" in render_report([Results(environment={}, models=[record])])
