"""What a network is called with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modelpress.export.errors import ModelError
from modelpress.export.graphs.conventions import INPUT


@dataclass(frozen=True)
class Inputs:
    """What a network is called with.

    Attributes:
        arguments: By position.
        named: By keyword.
    """

    arguments: tuple[Any, ...]
    named: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, example: Any) -> "Inputs":
        """From a tensor, a tuple of positional or a dict of named inputs.

        Raises:
            ModelError: It is none of these, or holds no tensor.
        """
        if isinstance(example, Tensor):
            inputs = cls((example,))
        elif isinstance(example, Mapping):
            inputs = cls((), dict(example))
        elif isinstance(example, Sequence) and not isinstance(example, str):
            inputs = cls(tuple(example))
        else:
            raise ModelError(
                f"the example input is a {type(example).__name__}; expected a tensor, a tuple or a dict of tensors"
            )
        if not inputs.tensors():
            raise ModelError(
                "the example input holds no tensor: the graph is drawn by calling the network with it"
            )
        return inputs

    def tensors(self) -> list[Tensor]:
        """All tensors, positional ones first."""
        return [value for value in (*self.arguments, *self.named.values()) if isinstance(value, Tensor)]

    @property
    def n_examples(self) -> int:
        """Length of the batch: the first axis of the first tensor."""
        first = self.tensors()[0]
        return first.shape[0] if first.ndim else 1

    def names(self) -> list[str]:
        """What they are called in the graph."""
        named = [key for key, value in self.named.items() if isinstance(value, Tensor)]
        n_positional = len(self.tensors()) - len(named)
        if n_positional == 1 and not named:
            return [INPUT if _is_image(self.tensors()[0]) else "input"]
        return [f"input{k}" if n_positional > 1 else "input" for k in range(n_positional)] + named

    def call(self, network: Callable[..., Any]) -> Any:
        """The network's output."""
        return network(*self.arguments, **self.named)

    def signature(self) -> tuple[object, ...]:
        """What of the inputs shapes the graph."""
        values = (*self.arguments, *self.named.items())
        return tuple((tuple(v.shape), v.dtype) if isinstance(v, Tensor) else repr(v) for v in values)

    def with_one_more(self) -> "Inputs":
        """A call of another batch: the first example of every tensor once more, behind the others."""

        def longer(value: Any) -> Any:
            return torch.cat([value, value[:1]]) if isinstance(value, Tensor) and value.ndim else value

        return Inputs(tuple(map(longer, self.arguments)), {k: longer(v) for k, v in self.named.items()})

    def with_first(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """The same with another value for the first tensor."""
        if self.arguments:
            return Inputs((change(self.arguments[0]), *self.arguments[1:]), self.named)
        first = next(iter(self.named))
        return Inputs((), {**self.named, first: change(self.named[first])})

    def part(self, examples: slice) -> "Inputs":
        """Some examples of the batch."""

        def cut(value: Any) -> Any:
            return value[examples] if isinstance(value, Tensor) and value.ndim else value

        return Inputs(tuple(map(cut, self.arguments)), {k: cut(v) for k, v in self.named.items()})

    def on(self, device: torch.device | str) -> "Inputs":
        """The same on a device."""

        def moved(value: Any) -> Any:
            return value.detach().to(device) if isinstance(value, Tensor) else value

        return Inputs(tuple(map(moved, self.arguments)), {k: moved(v) for k, v in self.named.items()})


def image_inputs(channels: int = 3, height: int = 32, width: int = 32) -> Inputs:
    """Two images, as the data sets here have them."""
    return Inputs((torch.zeros(2, channels, height, width),))


def _is_image(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.is_floating_point()
