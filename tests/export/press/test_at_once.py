"""An artifact that is read in one call is what the full way reads; what that one alone can tell is left to it."""

import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import onnx
import pytest
from onnx import helper

from modelpress.export import runtime
from modelpress.export.coding.core import core, numpy_alone
from modelpress.export.errors import ArtifactError, DamagedArtifact
from modelpress.export.exits.declaring import with_plan
from modelpress.export.exits.plan import Exit, ExitPlan
from modelpress.export.files.blocks import is_of_numpy
from modelpress.export.lazy_tensors import dense_of
from modelpress.export.press import at_once
from modelpress.export.press.at_once import read_at_once
from modelpress.export.press.reading import decode_artifact
from modelpress.export.press.writing import encode_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.export.sessions import load_session
from modelpress.export.tensor_spec import DTYPES, FEW_BITS, raw_bytes
from tests.fuzz import MAX_DECODED_BYTES, mutants
from tests.helpers.models import small_model, typed_model
from tests.helpers.paths import GOLDEN

FILES = sorted(path for path in GOLDEN.glob("*.press") if "types" not in path.name)
SMALL = GOLDEN / "v1.3-small.press"
LIMIT = 1 << 20

pytestmark = pytest.mark.skipif(core() is None, reason="nothing is compiled")


def at_once_equals(found, model):
    """Whether graph and elements are those of a decoded model."""
    graph, tensors = found
    return onnx.ModelProto.FromString(graph) == model.graph and [
        (name, kind, shape, bytes(data)) for name, kind, shape, data in tensors
    ] == [
        (name, helper.np_dtype_to_tensor_dtype(dense.dtype), dense.shape, bytes(raw_bytes(dense)))
        for name in model.tensors
        for dense in [dense_of(model.tensors, name)]
    ]


def written(tmp_path, data):
    path = tmp_path / "model.press"
    path.write_bytes(data)
    return path


# --- The same


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_of_every_version_give_the_same_tensors_and_the_same_session(path):
    assert at_once_equals(read_at_once(path, max_decoded_bytes=LIMIT), decode_artifact(path.read_bytes()))

    quick = load_session(path)
    with numpy_alone():
        full = load_session(path)
    (node,) = full.get_inputs()
    images = np.random.default_rng(0).random((3, *node.shape[1:]), np.float32)
    for asked in ("get_inputs", "get_outputs"):
        assert described(quick, asked) == described(full, asked)
    assert quick.get_modelmeta().custom_metadata_map == full.get_modelmeta().custom_metadata_map
    (expected,), (found,) = (session.run(None, {node.name: images}) for session in (full, quick))
    assert found.tobytes() == expected.tobytes()


def test_elements_of_every_type_of_whole_bytes_are_the_same(tmp_path):
    model = typed_model()
    whole = {name: tensor for name, tensor in model.tensors.items() if name not in few_bits_names()}
    data = encode_artifact(QuantizedModel(model.graph, whole))
    found = read_at_once(written(tmp_path, data), max_decoded_bytes=LIMIT)
    assert at_once_equals(found, decode_artifact(data))


def few_bits_names():
    return {f"type {kind}" for kind in FEW_BITS}


def test_types_are_those_of_the_full_way():
    assert set(FEW_BITS) == at_once._FEW_BITS
    assert {
        kind: dtype for kind, dtype in DTYPES.items() if dtype.kind == "f" and is_of_numpy(dtype)
    } == runtime._HANDED_OVER


def test_mutants_are_refused_or_read_as_the_full_way_reads_them(tmp_path):
    n_read = n_refused = 0
    for k, data in enumerate(mutants("at once", 300)):
        found = read_at_once(written(tmp_path, data), max_decoded_bytes=MAX_DECODED_BYTES)
        if found is None:
            n_refused += 1
            continue
        n_read += 1
        assert at_once_equals(found, decode_artifact(data, max_decoded_bytes=MAX_DECODED_BYTES)), k
    assert min(n_read, n_refused) > 30


def described(session, asked):
    return [(node.name, node.shape, node.type) for node in getattr(session, asked)()]


# --- Left to the full way


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"PK\3\4" + data[4:],
        lambda data: data[:-1],
        lambda data: data[:90],
        lambda data: data[:100] + b"?" + data[101:],
        lambda data: data[:8] + b"\2" + data[9:],
    ],
)
def test_errors_are_those_of_the_full_way(tmp_path, change):
    path = written(tmp_path, change(SMALL.read_bytes()))
    errors = []
    for way in (numpy_alone, nullcontext):
        with way(), pytest.raises(ArtifactError) as caught:
            load_session(path)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


def test_the_limit_of_decoded_bytes_holds():
    with pytest.raises(DamagedArtifact, match="tensors decode to 364 bytes; the limit is 363"):
        load_session(SMALL, max_decoded_bytes=363)
    assert read_at_once(SMALL, max_decoded_bytes=363) is None
    assert read_at_once(SMALL, max_decoded_bytes=364) is not None


def with_graph(change):
    """The small model with another graph."""
    model = small_model()
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graph)
    return QuantizedModel(change(graph) or graph, model.tensors)


def with_function(graph):
    node = helper.make_node("Relu", ["x"], ["y"])
    graph.functions.append(helper.make_function("own", "Own", ["x"], ["y"], [node], graph.opset_import))


def with_long_text(graph):
    graph.graph.doc_string = "long" * (1 << 16)


@pytest.mark.parametrize(
    "model",
    [
        typed_model(),
        QuantizedModel(small_model().graph, {**small_model().tensors, "é": np.zeros(2, np.float32)}),
        with_graph(with_function),
        with_graph(with_long_text),
        with_graph(lambda graph: with_plan(graph, ExitPlan((Exit("a", 0.5),)))),
    ],
    ids=["few bits", "a name beyond ASCII", "a function", "a large graph", "early exits"],
)
def test_what_c_does_not_look_at_is_left_to_the_full_way(tmp_path, model):
    path = written(tmp_path, encode_artifact(model))
    assert read_at_once(path, max_decoded_bytes=LIMIT) is None


def test_large_files_and_missing_ones_are_left_to_the_full_way(tmp_path, monkeypatch):
    assert read_at_once(tmp_path / "missing", max_decoded_bytes=LIMIT) is None
    assert read_at_once(tmp_path, max_decoded_bytes=LIMIT) is None
    with numpy_alone():
        assert read_at_once(SMALL, max_decoded_bytes=LIMIT) is None
    monkeypatch.setattr(at_once, "_MOST_BYTES", 363)
    assert read_at_once(SMALL, max_decoded_bytes=LIMIT) is None


# --- What it is for


def test_a_session_of_an_artifact_needs_no_onnx_and_few_modules():
    """A count, since what an import takes is mostly the same."""
    script = (
        "import sys, numpy, onnxruntime, modelpress\n"
        "before = len(sys.modules)\n"
        f"modelpress.open_session({str(SMALL)!r})\n"
        "print('onnx' in sys.modules, 'dataclasses' in sys.modules, len(sys.modules) - before < 40)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]
