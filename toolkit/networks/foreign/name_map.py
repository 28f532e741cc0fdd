"""Names of a checkpoint matched to those of a network, by the shapes and the order of their layers."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from modelpress.export.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]
_SHOWN = 3  # names listed of each kind


@dataclass(frozen=True)
class Layer:
    """The tensors of one module.

    Attributes:
        name: What their names have in common; empty for tensors without a module.
        shapes: By kind: ``weight``, ``bias``, ``running_mean``, …
    """

    name: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    def __str__(self) -> str:
        kind, shape = self.shapes[0]
        return f"{joined(self.name, kind)} {shape}"


@dataclass(frozen=True)
class NameMap:
    """Which layer of a checkpoint is which layer of the network.

    Attributes:
        layers: The checkpoint's, and the network's.
    """

    layers: tuple[tuple[Layer, Layer], ...]

    def modules(self) -> dict[str, str]:
        """By the checkpoint's name of a layer, the network's."""
        return {theirs.name: ours.name for theirs, ours in self.layers}

    def table(self) -> str:
        """A line a layer: its name in the checkpoint, in the network, and its first tensor's shape.

        Example:
            >>> theirs, ours = ({f"{n}.weight": (9, 4), f"{n}.bias": (9,)} for n in ("fc", "head.linear"))
            >>> print(map_names(theirs, ours, ordered=True).table())
            fc  →  head.linear  weight (9, 4), bias
        """
        width = max(len(theirs.name) for theirs, _ in self.layers)
        width_ours = max(len(ours.name) for _, ours in self.layers)
        return "\n".join(
            f"{theirs.name:<{width}}  →  {ours.name:<{width_ours}}  {_kinds(ours)}"
            for theirs, ours in self.layers
        )


class NoCounterpart(InputError):  # noqa: N818 - reads as the fact it states
    """The layers of a checkpoint are others than those of the network, whatever their names."""


def layers_of(shapes: Shapes) -> list[Layer]:
    """Tensors collected to layers, in the order of their first ones."""
    found: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        found[module][kind] = shape

    # Within a layer the order says nothing: an old file may have the bias first.
    return [
        Layer(name, tuple(sorted(kinds.items(), key=lambda item: (item[0] != "weight", item[0]))))
        for name, kinds in found.items()
    ]


def map_names(theirs: Shapes, ours: Shapes, *, ordered: bool) -> NameMap:
    """Match two lists of layers.

    Layers match that have the same kinds of tensors in the same shapes. If the checkpoint has its layers in the
    network's order, place by place, that order decides among equals. Otherwise only layers without equals are
    certain, and those whose names differ from each other by their numbers alone.

    Args:
        theirs: Of the checkpoint, by tensor name.
        ours: Of the network.
        ordered: Whether the order of `theirs` is that in which the layers were defined; safetensors sorts by name.

    Raises:
        NoCounterpart: A layer has none.
        InputError: A layer has more than one.

    Example:
        >>> theirs = {"conv1.weight": (8, 3, 3, 3), "conv2.weight": (8, 8, 3, 3)}
        >>> ours = {"head.weight": (8, 3, 3, 3), "body.0.weight": (8, 8, 3, 3)}
        >>> map_names(theirs, ours, ordered=True).modules()
        {'conv1': 'head', 'conv2': 'body.0'}
    """
    left, right = layers_of(theirs), layers_of(ours)
    _check_counterparts(left, right)
    if ordered and [layer.shapes for layer in left] == [layer.shapes for layer in right]:
        return NameMap(tuple(zip(left, right, strict=True)))

    matched: dict[str, Layer] = {}
    ours_alike, theirs_alike = _alike(right), _alike(left)
    for shapes, group in ours_alike.items():
        candidates = theirs_alike[shapes]
        _check_certain(candidates, group, left, right, ordered=ordered)
        matched |= {
            layer.name: candidate
            for layer, candidate in zip(group, sorted(candidates, key=_numbers), strict=True)
        }
    return NameMap(tuple((matched[layer.name], layer) for layer in right))


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _check_counterparts(theirs: list[Layer], ours: list[Layer]) -> None:
    """The same shapes on both sides, equally often."""
    theirs_alike, ours_alike = _alike(theirs), _alike(ours)
    lone = [
        *_left_over("the checkpoint's", theirs_alike, ours_alike),
        *_left_over("the network's", ours_alike, theirs_alike),
    ]
    if lone:
        raise NoCounterpart(f"no mapping by shape: without counterpart are {' and '.join(lone)}")


def _left_over(
    whose: str, here: dict[object, list[Layer]], there: dict[object, list[Layer]]
) -> Iterator[str]:
    left = [
        layer
        for shapes, group in here.items()
        if len(group) > len(there.get(shapes, ()))
        for layer in group[len(there.get(shapes, ())) :]
    ]
    if left:
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        yield f"{whose} {', '.join(map(str, left[:_SHOWN]))}{more}"


def _check_certain(
    candidates: list[Layer], group: list[Layer], theirs: list[Layer], ours: list[Layer], *, ordered: bool
) -> None:
    if len(group) == 1:
        return
    if ordered:
        place = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a.shapes != b.shapes)
        raise InputError(
            f"no certain mapping by shape: {group[0]} could be {candidates[0].name} or {candidates[1].name}, and "
            f"the order does not tell: layer {place + 1} is {theirs[place]} in the checkpoint, {ours[place]} in the "
            "network; rename the tensors"
        )
    if len({re.sub(r"\d+", "#", layer.name) for layer in candidates}) > 1:
        raise InputError(
            f"no certain mapping by shape: {group[0]} could be {candidates[0].name} or {candidates[1].name}, and "
            "safetensors files keep no order; save the weights with torch.save, or rename the tensors"
        )


def _alike(layers: list[Layer]) -> dict[object, list[Layer]]:
    groups: dict[object, list[Layer]] = defaultdict(list)
    for layer in layers:
        groups[layer.shapes].append(layer)
    return dict(groups)


def _numbers(layer: Layer) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", layer.name)]


def joined(module: str, kind: str) -> str:
    """Name of a tensor."""
    return f"{module}.{kind}" if module else kind


def _kinds(layer: Layer) -> str:
    (kind, shape), *others = layer.shapes
    return ", ".join([f"{kind} {shape}", *(name for name, _ in others)])
