"""How long single layers take in ONNX Runtime on this machine, measured once and kept.

A graph with the layer and a ReLU is timed beside one that does nothing: the difference is the layer's. What stands
between the layers of a network is not in the table, so that sums of it are a guide; whole networks are timed against
each other where a figure has to hold, and their ratio is kept likewise.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelpress.benchmarks.environment import describe_environment
from modelpress.export.errors import InputError
from modelpress.export.files.atomic import write_atomically
from modelpress.export.graphs.channels.costs import LayerShape
from modelpress.export.graphs.channels.random_feed import random_feed
from modelpress.export.graphs.conventions import IR_VERSION, OPSET
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import open_decoded, open_session

_SECONDS = 0.1  # for each layer
_SECONDS_OF_NETWORKS = 2.0
_FEWEST = 5  # rounds, however long a layer takes


@dataclass
class LayerTable:
    """Times of layers, by their shapes; what is asked for the first time is measured.

    Attributes:
        path: The file that keeps it.
        machine: What the times hold for: processor and runtime.
        date: Of the first measurement.
        nanoseconds: By the name of a shape.
        ratios: Of whole networks, the smaller one's time over the larger one's, by the names of both.
    """

    path: Path
    machine: dict[str, str]
    date: str
    nanoseconds: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    _new: int = 0

    @classmethod
    def read(cls, path: Path | None = None) -> "LayerTable":
        """The table in a file; an empty one where there is none yet, or where it is of another machine.

        Args:
            path: None: the file in the user's cache folder.

        Raises:
            InputError: It cannot be read, or is no such table.
        """
        place = cached_table() if path is None else path
        machine = this_machine()
        new = cls(place, machine, datetime.now(UTC).isoformat(timespec="seconds"))
        if not place.exists():
            return new

        try:
            stored = json.loads(place.read_text("utf-8"))
            times, ratios = (
                {str(name): float(value) for name, value in stored[kind].items()}
                for kind in ("nanoseconds", "ratios")
            )
            known = cls(place, dict(stored["machine"]), str(stored["date"]), times, ratios)
        except OSError as error:
            raise InputError(f"{place}: cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{place}: is no table of layers; remove it, and it is measured anew") from error
        return known if known.machine == machine else new

    def time_of(self, shape: LayerShape) -> float:
        """Nanoseconds of one such layer for one example, on one thread."""
        name = name_of(shape)
        if name not in self.nanoseconds:
            self.nanoseconds[name] = measured(shape)
            self._new += 1
        return self.nanoseconds[name]

    def ratio_of(
        self,
        models: Callable[[], tuple[QuantizedModel, QuantizedModel]],
        names: Sequence[str],
        operators: Sequence[str],
    ) -> float:
        """Time of one network over that of another, for one example, on one thread.

        Args:
            models: Makes the one and the other.
            names: What both consist of: their layers.
            operators: What else is in them, which takes time too.
        """
        key = hashlib.sha256("\n".join((*names, *operators)).encode()).hexdigest()[:16]
        if key not in self.ratios:
            calls = [_network(model) for model in models()]
            least = least_times(calls, seconds=_SECONDS_OF_NETWORKS)
            self.ratios[key] = least[0] / least[1]
            self._new += 1
        return self.ratios[key]

    def keep(self) -> None:
        """Write the file, if anything was measured.

        Raises:
            InputError: It cannot be written.
        """
        if not self._new:
            return
        facts = {"machine": self.machine, "threads": 1, "batch": 1, "date": self.date}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path.parent}: cannot be made: {error.strerror}") from error
        text = json.dumps({**facts, "nanoseconds": self.nanoseconds, "ratios": self.ratios}, indent=1)
        write_atomically(self.path, text.encode())
        self._new = 0


def cached_table() -> Path:
    """Where times of layers are kept unless a file is named."""
    home = {"win32": "LOCALAPPDATA"}.get(sys.platform, "XDG_CACHE_HOME")
    folder = os.environ.get(home) or str(Path.home() / ".cache")
    return Path(folder) / "modelpress" / "layer-latency.json"


def this_machine() -> dict[str, str]:
    """What a time of a layer depends on, besides its shape."""
    facts = describe_environment()
    return {
        "cpu": facts["cpu"],
        "instruction_sets": " ".join(facts["instruction_sets"]),
        "onnxruntime": facts["versions"].get("onnxruntime", "unknown"),
    }


def name_of(shape: LayerShape) -> str:
    """A shape in a word.

    Example:
        >>> name_of(LayerShape("Conv", 16, 32, 1, (8, 8), 64, (3, 3), (("pads", (1, 1, 1, 1)),)))
        'Conv 16>32 at 8x8, kernel 3x3, pads 1x1x1x1'
    """
    parts = [f"{shape.operator} {shape.taken}>{shape.made} at {_by(shape.size)}"]
    parts += [f"kernel {_by(shape.kernel)}"] if shape.kernel else []
    parts += [f"groups {shape.groups}"] if shape.groups > 1 else []
    return ", ".join([*parts, *(f"{name} {_by(values)}" for name, values in shape.moves)])


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def measured(shape: LayerShape) -> float:
    """Nanoseconds that a layer of this shape takes, in processor time; without those of an empty call."""
    alone, empty = least_times([_layer(shape), _empty()])
    return max(alone - empty, 1.0)


def least_times(calls: Sequence[Callable[[], Any]], *, seconds: float = _SECONDS) -> list[float]:
    """Processor time of each call in nanoseconds, the least of many rounds in which they take turns."""
    for call in calls:
        call()  # the first one allocates

    least = [float("inf")] * len(calls)
    n_rounds, until = 0, time.perf_counter() + seconds
    while n_rounds < _FEWEST or time.perf_counter() < until:
        for k, call in enumerate(calls):
            began = time.process_time_ns()
            call()
            least[k] = min(least[k], time.process_time_ns() - began)
        n_rounds += 1
    return least


def _network(model: QuantizedModel) -> Callable[[], Any]:
    session = open_decoded(model, threads=1, spinning=False)
    feed = random_feed(model, batch=1)
    return lambda: session.run(None, feed)


def _layer(shape: LayerShape) -> Callable[[], Any]:
    random = np.random.default_rng(0)
    attributes: dict[str, Any] = {name: list(values) for name, values in shape.moves}
    if shape.kernel:
        attributes["group"] = shape.groups
    operator = shape.operator if shape.kernel else "MatMul"
    weight = random.standard_normal(_weight_shape(shape)).astype(np.float32)
    nodes = [
        helper.make_node(operator, ["x", "w"], ["y"], **attributes),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    x = (1, shape.taken, *shape.size) if shape.kernel else (*shape.size, shape.taken)
    return _call_of(
        nodes, [numpy_helper.from_array(weight, "w")], random.standard_normal(x).astype(np.float32)
    )


def _empty() -> Callable[[], Any]:
    return _call_of([helper.make_node("Relu", ["x"], ["z"])], [], np.zeros((1, 1), np.float32))


def _call_of(
    nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], x: npt.NDArray[np.float32]
) -> Callable[[], Any]:
    given, found = (
        helper.make_tensor_value_info(v, TensorProto.FLOAT, s) for v, s in (("x", x.shape), ("z", None))
    )
    graph = helper.make_graph(nodes, "layer", [given], [found], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    session = open_session(model.SerializeToString(), threads=1, spinning=False)
    return lambda: session.run(None, {"x": x})


def _weight_shape(shape: LayerShape) -> tuple[int, ...]:
    if not shape.kernel:
        return shape.taken, shape.made
    if shape.operator == "Conv":
        return shape.made, shape.taken // shape.groups, *shape.kernel
    return shape.taken, shape.made // shape.groups, *shape.kernel
