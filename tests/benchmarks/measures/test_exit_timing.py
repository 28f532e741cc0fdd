"""Networks with early exits are timed where they compute."""

import time

import numpy as np
import pytest
from onnx import parser

from modelpress.benchmarks.measures.exits import time_in_turns
from modelpress.export.errors import InputError
from modelpress.export.isolation.foreign import foreign_work

HEAD = '<ir_version: 8, opset_import: ["": 17]> g (float[1, 4] x) => '
FULL = parser.parse_model(HEAD + "(float[1, 4] y) { y = Relu(x) }").SerializeToString()
EARLY = parser.parse_model(
    HEAD + "(float[1, 4] y, int64[1] e) { y = Relu(x) m = ReduceMax <axes = [1], keepdims = 0> (x) "
    "e = Cast <to = 7> (m) }"
).SerializeToString()


def test_the_clock_is_that_of_the_process_that_computes(monkeypatch):
    def this_process():
        raise AssertionError("timed here, where only messages are sent")

    monkeypatch.setattr(time, "thread_time", this_process)
    images = np.repeat(np.arange(3, dtype=np.float32), [100, 200, 50])[:, None] * np.ones(4, np.float32)
    with foreign_work():
        early, full = time_in_turns(EARLY, FULL, images, 1)
    assert early.exits.tolist() == images[:, 0].astype(int).tolist()
    assert not full.exits.any()
    assert early.seconds.shape == full.seconds.shape == (350,)
    assert (early.seconds > 0).all()


def test_a_network_that_is_none_is_refused():
    with foreign_work(), pytest.raises(InputError):
        time_in_turns(b"no model", FULL, np.zeros((2, 4), np.float32), 1)
