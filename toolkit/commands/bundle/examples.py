"""What a bundle claims of data that are no images with one class each, and the examples that are handed over."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from modelpress.benchmarks.measures.metrics import measure
from modelpress.benchmarks.measures.outputs import Outputs, outputs_of
from modelpress.export.errors import InputError
from modelpress.export.handoff.manifest import Contract, MetricClaim
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.data.network_input import network_inputs

TEST_DATA = "samples/test.npz"
_CALLS = 2


def all_outputs(
    session: ort.InferenceSession, data: DataSet, metadata: Mapping[str, str]
) -> np.ndarray[Any, Any]:
    """Outputs for all test examples.

    Raises:
        InputError: The model does not take them, or gives several outputs.
    """
    found: Outputs = outputs_of(session, network_inputs(data.test, data, metadata))
    if isinstance(found, Mapping):
        raise InputError(f"the model gives {len(found)} outputs; a bundle is of one")
    return found


def metric_claim(outputs: np.ndarray[Any, Any], data: DataSet) -> MetricClaim:
    """The figure of merit of outputs for all test examples."""
    record = measure(data.metric, outputs, data.test.all_targets)
    return MetricClaim(
        metric=record.name,
        value=record.value,
        interval=record.interval,
        fraction=record.fraction,
        n_examples=record.n_examples,
        dataset=data.name,
        fingerprint=data.fingerprint(),
    )


def examples_as_calls(contract: Contract, data: DataSet, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The first test examples, as the model takes them, in the place of other calls."""
    few = min(_CALLS, len(data.test))
    (rows,) = network_inputs(data.test, data, metadata).values()
    values = [{contract.input_name: np.asarray(rows[k : k + 1])} for k in range(few)]
    return {"values": values, "source": f"the first test examples of {data.name}, as the model takes them"}


def write_test_data(folder: Path, data: DataSet) -> str:
    """All test examples with their targets.

    Raises:
        InputError: They are of several inputs or targets.
    """
    if len(data.test.inputs) > 1 or len(data.test.targets) > 1:
        raise InputError(f"{data.name} has several inputs or targets; a bundle hands over one of each")
    path = folder / TEST_DATA
    path.parent.mkdir(exist_ok=True)
    np.savez(path, inputs=np.asarray(data.test.first[:]), targets=data.test.labels)
    return TEST_DATA
