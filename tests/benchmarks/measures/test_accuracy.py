"""Accuracy, its interval, and the paired test."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest

from modelpress.benchmarks.measures.accuracy import (
    classify,
    is_right,
    paired_test,
    top1,
    top5,
    wilson_interval,
)
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.benchmarks.suite import add_accuracies, describe_model
from modelpress.export.errors import InputError
from modelpress.export.onnx_flavours import emit
from modelpress.export.press.writing import write_artifact
from modelpress.export.runtime import open_session
from tests.helpers.models import small_model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "model.onnx").write_bytes(emit(small_model(), flavour="float").SerializeToString())
    write_artifact(folder / "model.press", small_model())
    return [open_model(folder / name) for name in ("model.onnx", "model.press")]


def images(n):
    return np.random.default_rng(0).standard_normal((n, 2, 6, 6)).astype(np.float32)


def with_batch_axis_of(length):
    model = emit(small_model(), flavour="float")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = length
    return open_session(model.SerializeToString())


def test_wilson_interval_is_the_textbooks():
    for hits, n in ((0, 10), (5, 10), (913, 1000), (1000, 1000)):
        expected = binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson_interval(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_top_k_agrees_with_sorting():
    rng = np.random.default_rng(1)
    logits, labels = rng.integers(0, 6, (200, 9)).astype(np.float32), rng.integers(0, 9, 200)
    order = np.argsort(-logits, axis=1, kind="stable")
    for k in range(1, 10):
        assert np.array_equal(is_right(logits, labels, k=k), (order[:, :k] == labels[:, None]).any(axis=1))
    assert top1(logits, labels) == np.mean(logits.argmax(axis=1) == labels)


def test_top5_has_no_meaning_for_five_classes():
    assert top5(np.zeros((3, 5), np.float32), np.zeros(3, np.int64)) is None
    assert top5(np.zeros((3, 6), np.float32), np.array([0, 4, 5])) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("only_baseline", "only_this", "p_value"), [(10, 0, 2 * 0.5**10), (3, 3, 1.0)])
def test_mcnemar_is_the_sign_test_on_images_that_differ(only_baseline, only_this, p_value):
    baseline = np.array([True] * only_baseline + [False] * only_this + [True] * 50 + [False] * 7)
    this = np.array([False] * only_baseline + [True] * only_this + [True] * 50 + [False] * 7)
    test = paired_test(baseline, this)
    assert (test.n_only_baseline, test.n_only_this) == (only_baseline, only_this)
    assert test.p_value == pytest.approx(p_value)


def test_equal_models_are_not_told_apart():
    right = np.array([True, False, True])
    assert paired_test(right, right).p_value == 1.0


def test_accuracy_of_both_formats_is_that_of_their_logits(models):
    records = [describe_model(model) for model in models]
    labels = np.arange(50) % 3
    found = add_accuracies(records, models, images(50), labels, n_classes=3)
    assert np.array_equal(*found)
    for record, logits in zip(records, found, strict=True):
        assert record.top1 == np.mean(logits.argmax(1) == labels)
        assert record.top1_interval[0] <= record.top1 <= record.top1_interval[1]
        assert (record.n_images, record.top5, record.top5_interval) == (50, None, None)
    assert records[0].paired is None
    assert records[1].paired.p_value == 1.0


def test_a_fixed_batch_axis_gives_the_same_logits():
    expected = classify(open_session(emit(small_model(), flavour="float").SerializeToString()), images(10))
    for length in (1, 4, 10, 16):
        assert np.array_equal(classify(with_batch_axis_of(length), images(10)), expected)


@pytest.mark.parametrize(
    ("n", "n_classes", "message"),
    [
        (0, 3, "model.onnx: the data set holds no images"),
        (5, 10, "model.onnx: the model gives 3 logits.* 10"),
    ],
)
def test_data_that_do_not_fit_are_refused(models, n, n_classes, message):
    with pytest.raises(InputError, match=message):
        add_accuracies([SimpleNamespace()], models[:1], images(n), np.zeros(n, np.int64), n_classes=n_classes)
