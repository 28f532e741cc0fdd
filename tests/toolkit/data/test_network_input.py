"""Files are measured on images as each of them expects them."""

import json

import numpy as np
import pytest

from modelpress.benchmarks.measures.accuracy import classify, top1
from modelpress.benchmarks.subjects.model_file import open_model
from modelpress.benchmarks.suite import add_accuracies, describe_model
from modelpress.export.errors import InputError
from modelpress.export.press.writing import write_artifact
from modelpress.export.quantized import QuantizedTensor
from modelpress.toolkit.data.data_set import normalised
from modelpress.toolkit.data.digits import load_digits
from modelpress.toolkit.data.network_input import network_input, normalisation_for
from tests.helpers.graph_builder import INPUT, GraphBuilder

DIGITS = load_digits()
OTHER = ((0.1, 0.5, 0.9), (0.5, 0.3, 0.9))


def stated(mean, std):
    return {"modelpress.input": json.dumps({"layout": "NCHW", "mean": mean, "std": std})}


def image_model(path, metadata):
    """Pools images of 3x32x32 and classifies the averages."""
    codes = np.random.default_rng(3).integers(-7, 8, (10, 3)).astype(np.int8)
    builder = GraphBuilder("images", (3, 32, 32))
    weight = QuantizedTensor(codes, bits=4, scale=np.float32(0.1))
    pooled = builder.flatten(builder.global_average_pool(INPUT))
    x = builder.gemm("fc", pooled, weight, np.zeros(10, np.float32))
    write_artifact(path, builder.finish(x, n_outputs=10, metadata=metadata))
    return open_model(path)


def test_the_model_decides_and_else_the_data_set():
    pixels = DIGITS.test.images[:2]
    assert normalisation_for(DIGITS, {}) == (DIGITS.mean, DIGITS.std)
    np.testing.assert_array_equal(
        network_input(pixels, DIGITS, {}), normalised(pixels, DIGITS.mean, DIGITS.std)
    )
    np.testing.assert_array_equal(network_input(pixels, DIGITS, stated(*OTHER)), normalised(pixels, *OTHER))


def test_a_model_for_other_channels_is_refused():
    with pytest.raises(InputError, match="made for images of 1 channels, those of digits have 3"):
        normalisation_for(DIGITS, stated([0.5], [0.5]))


def test_each_model_is_measured_on_its_own_normalisation(tmp_path):
    models = [image_model(tmp_path / "a.press", {}), image_model(tmp_path / "b.press", stated(*OTHER))]
    records = [describe_model(model) for model in models]
    images, labels = DIGITS.test.images, DIGITS.test.labels
    add_accuracies(records, models, lambda m: network_input(images, DIGITS, m.metadata), labels, n_classes=10)
    for record, model, rule in zip(records, models, ((DIGITS.mean, DIGITS.std), OTHER), strict=True):
        assert record.top1 == top1(classify(model.session(), normalised(images, *rule)), labels)
