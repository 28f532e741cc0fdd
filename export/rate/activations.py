"""Activations of a network on calibration inputs, computed once each on a walk along its graph."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from modelpress.export.graphs.index import GraphIndex, reads_of
from modelpress.export.post_training.calibration import Feed
from modelpress.export.quantized import QuantizedModel, Tensor
from modelpress.export.runtime import open_decoded, run_feed

Array = npt.NDArray[np.generic]
Activations = dict[str, Array]
MEMORY = 600 << 20  # bytes of activations that one walk keeps


class Walk:
    """One network on its way from the inputs to the outputs.

    It keeps what nodes yet to come will read, of every call; where that is more than `memory`, of the first calls
    only. Weights may change until a node that reads them has been passed.

    Args:
        graph: Without its tensors.
        feeds: Calls.
        memory: Bytes of activations to keep; of one call they are kept in any case.
    """

    def __init__(self, graph: onnx.ModelProto, feeds: Sequence[Feed], *, memory: int = MEMORY) -> None:
        self._graph = graph
        self._index = GraphIndex.of_model(graph)
        self._memory = memory
        self._passed: set[int] = set()
        self._calls: list[Activations] = [{name: np.asarray(v) for name, v in feed.items()} for feed in feeds]
        self._inputs = set(self._calls[0])

    @property
    def n_calls(self) -> int:
        """How many calls are kept."""
        return len(self._calls)

    def to(self, name: str, tensors: Mapping[str, Tensor], *, passing: bool = True) -> list[Array]:
        """An activation in every call.

        Args:
            name: Of an input, or of what a node makes.
            tensors: The network as it is now.
            passing: Go on from there; else stay where the walk is, so that weights before it may still change.

        Raises:
            InputError: The feeds do not fit the model.
        """
        ahead = self._ahead_of(name)
        keep = self._read_later(self._passed | ahead) if passing else set()
        wanted = sorted(({name} | keep) - set(self._calls[0]))
        found: list[Array] = []
        session = None
        if ahead:
            session = open_decoded(self._part(ahead, wanted, tensors), spinning=False)

        needed = {node.name for node in session.get_inputs()} if session is not None else set()
        for call in self._calls:
            made = (
                run_feed(session, {n: v for n, v in call.items() if n in needed})
                if session is not None
                else {}
            )
            found.append(made[name] if name in made else call[name])
            if passing:
                self._keep(call, made, keep)
        if passing:
            self._passed |= ahead
            self._drop_calls()
        return found[: self.n_calls]

    def _ahead_of(self, name: str) -> set[int]:
        """Numbers of the nodes between here and an activation."""
        pending, ahead = [name], set[int]()
        known = set(self._calls[0])
        while pending:
            number = self._index.producers.get(pending.pop())
            if number is None or number in ahead:
                continue
            made = {output for output in self._index.nodes[number].output if output}
            if made & known and number in self._passed:
                continue
            ahead.add(number)
            pending += [read for read in reads_of(self._index.nodes[number]) if read not in known]
        return ahead

    def _read_later(self, passed: set[int]) -> set[str]:
        """What nodes beyond will read of what has been made."""
        made = {name for number in passed for name in self._index.nodes[number].output if name}
        return {
            name
            for name in made | self._inputs
            if any(number not in passed for number in self._index.consumers.get(name, ()))
        }

    def _part(
        self, numbers: set[int], outputs: Sequence[str], tensors: Mapping[str, Tensor]
    ) -> QuantizedModel:
        """These nodes as a model that starts from what is known."""
        part = onnx.ModelProto()
        part.CopyFrom(self._graph)
        del part.graph.node[:], part.graph.output[:], part.graph.input[:], part.graph.value_info[:]
        part.graph.node.extend(self._index.nodes[number] for number in sorted(numbers))
        reads = {name for number in numbers for name in reads_of(self._index.nodes[number])}
        part.graph.input.extend(
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim
            )
            for name, value in self._calls[0].items()
            if name in reads
        )
        part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        return QuantizedModel(part, {name: tensors[name] for name in tensors if name in reads})

    @staticmethod
    def _keep(call: Activations, made: Activations, keep: set[str]) -> None:
        call.update(made)
        for name in call.keys() - keep:
            del call[name]

    def _drop_calls(self) -> None:
        left = self._memory
        for number, call in enumerate(self._calls):
            left -= sum(value.nbytes for name, value in call.items() if name not in self._inputs)
            if left < 0 and number:
                del self._calls[number:]
                return


def outputs_of(model: QuantizedModel, feeds: Iterable[Feed]) -> list[Activations]:
    """The float outputs of a model, call by call."""
    session = open_decoded(model, spinning=False)
    return [
        {name: value for name, value in run_feed(session, feed).items() if value.dtype.kind == "f"}
        for feed in feeds
    ]
