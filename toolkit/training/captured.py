"""Steps recorded once as a CUDA graph and replayed: small networks wait for launches, not for arithmetic.

A step of a ResNet-20 launches some 300 kernels, with quantizers 550; replayed, it launches one graph.

Source: CUDA C++ Programming Guide, section "CUDA Graphs"; PyTorch's notes on CUDA semantics, "CUDA Graphs".
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.progress import Progress

Gradients = Callable[
    [Inputs, Any], Tensor
]  # fills the gradients of a network, and returns the loss without its past

_PLAIN_STEPS = 3  # before the first recording: libraries choose their kernels and allocate what they need


class CapturedGradients:
    """Computes loss and gradients of a network's step, by replaying a recording where it can.

    What is recorded is what the kernels read and write, so tensors that a step reads may change between two steps only
    in place. Where the step itself becomes another, as where quantizers are switched on, `forget` has it recorded anew.

    Args:
        network: Whose parameters receive the gradients.
        plainly: Computes them without a recording; on a CUDA device.
        progress: Told where a step cannot be recorded.
    """

    def __init__(self, network: nn.Module, plainly: Gradients, progress: Progress) -> None:
        self._parameters = list(network.parameters())
        self._plainly, self._progress = plainly, progress
        self._stream = torch.cuda.Stream()
        self._plain_steps = 0
        self._recording: _Recording | None = None
        self._given_up = False

    def forget(self) -> None:
        """The step has become another one."""
        self._recording = None

    def __call__(self, inputs: Inputs, targets: Any) -> Tensor:
        """The loss of a batch, a scalar; the gradients of the mean are in the parameters."""
        if self._given_up or not isinstance(targets, Tensor):
            return self._plainly(inputs, targets)
        if self._plain_steps < _PLAIN_STEPS:
            self._plain_steps += 1
            return self._beside(inputs, targets)

        if self._recording is None or not self._recording.fits(inputs, targets):
            try:
                self._recording = self._record(inputs, targets)
            except Exception as error:  # whatever a step may do that a recording does not allow
                self._given_up, self._recording = True, None
                self._progress.note(
                    f"trains without CUDA graphs: {type(error).__name__}: {error}".splitlines()[0]
                )
                return self._plainly(inputs, targets)
        return self._recording.replay(inputs, targets)

    def _beside(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """A plain step on the stream that records: what is set up per stream is there then."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            loss = self._plainly(inputs, targets)
        torch.cuda.current_stream().wait_stream(self._stream)
        return loss

    def _record(self, inputs: Inputs, targets: Tensor) -> "_Recording":
        for parameter in self._parameters:  # their gradients live in the recording's memory from now on
            parameter.grad = None
        return _Recording(self._plainly, _copied(inputs), targets.clone(), self._stream)


class _Recording:
    """One recorded step and the memory that it reads and writes."""

    def __init__(
        self, plainly: Gradients, inputs: Inputs, targets: Tensor, stream: torch.cuda.Stream
    ) -> None:
        self._inputs, self._targets = inputs, targets
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(self._graph, stream=stream):
            self._loss = plainly(inputs, targets)

    def fits(self, inputs: Inputs, targets: Tensor) -> bool:
        """Whether a batch has the shapes that were recorded."""
        here = (self._inputs.signature(), self._targets.shape, self._targets.dtype)
        return here == (inputs.signature(), targets.shape, targets.dtype)

    def replay(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """The step for another batch."""
        for own, given in zip(self._inputs.tensors(), inputs.tensors(), strict=True):
            own.copy_(given)
        self._targets.copy_(targets)
        self._graph.replay()
        return self._loss.clone()  # the next replay overwrites it


def _copied(inputs: Inputs) -> Inputs:
    def copied(value: Any) -> Any:
        return value.clone() if isinstance(value, Tensor) else value

    return Inputs(tuple(map(copied, inputs.arguments)), {k: copied(v) for k, v in inputs.named.items()})
