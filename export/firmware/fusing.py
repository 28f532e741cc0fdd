"""Sums become one with the convolution before them: no plane of its codes is kept, and the other term makes room."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from modelpress.export.firmware.network import Add, Conv, Network, Operator


def fuse_sums(network: Network) -> Network:
    """The network with every Add that a convolution feeds, and nobody else reads, run by that convolution."""
    operators = list(network.operators)
    reads = Counter(source for operator in operators for source in operator.sources)
    makers = {operator.output: operator for operator in operators}
    fused: dict[Operator, Conv] = {}

    for operator in operators:
        conv = _conv_of(operator, makers, reads)
        if conv is not None and isinstance(operator, Add):
            other = next(s for s in operator.sources if s != conv.output)
            fused[operator] = replace(
                conv, sources=(*conv.sources, other), output=operator.output, added=operator
            )

    gone = {id(makers[_own(conv)]) for conv in fused.values()}
    kept = [fused.get(operator, operator) for operator in operators if id(operator) not in gone]
    return replace(network, operators=kept)


def _own(conv: Conv) -> str:
    """The codes that the convolution itself makes."""
    assert conv.added is not None
    return next(source for source in conv.added.sources if source != conv.sources[1])


def _conv_of(operator: Operator, makers: dict[str, Operator], reads: Counter[str]) -> Conv | None:
    if not isinstance(operator, Add) or len(set(operator.sources)) != len(operator.sources):
        return None
    for source in operator.sources:
        made_by = makers.get(source)
        if isinstance(made_by, Conv) and reads[source] == 1 and made_by.added is None:
            return made_by
    return None


def check_order(source: str, operators: Sequence[Operator]) -> None:
    """Every operator reads what is there already; ValueError if not."""
    known = {source}
    for operator in operators:
        if not known.issuperset(operator.sources):
            raise ValueError(f"{operator.name} reads what is made later")
        known.add(operator.output)
