"""What a model says of its early exits: their outputs, the rule and the thresholds, in its metadata.

The graph of a model with exits declares the last one's output alone, so that whoever knows nothing of exits has the
network that it would be without them; the heads are nodes that nothing reads.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, get_args

import onnx

from modelpress.export.errors import ModelError
from modelpress.export.graphs.conventions import EXITS_METADATA
from modelpress.export.graphs.parts import metadata

Rule = Literal["probability", "margin"]
_PREFIX = "exit."  # of an output's name, before that of the block
_MOST = 1000  # exits; a file that says more is damaged


def exit_output(block: str) -> str:
    """Name of the output that the head after a block gives.

    Example:
        >>> exit_output("body_op.2")
        'exit.body_op.2'
    """
    return _PREFIX + block


@dataclass(frozen=True)
class Exit:
    """One early exit.

    Attributes:
        after: Name of the block before it.
        threshold: Confidence from which an example leaves; None: it pays for none, and its head is left out.
    """

    after: str
    threshold: float | None = None

    @classmethod
    def at(cls, after: str, threshold: float) -> "Exit":
        """With this threshold; an infinite one is none."""
        return cls(after, threshold if isfinite(threshold) else None)

    @property
    def output(self) -> str:
        """Name of its logits in the graph."""
        return exit_output(self.after)


@dataclass(frozen=True)
class ExitPlan:
    """All early exits of a model, in the order in which they are met.

    Attributes:
        exits: Without the last one, by which every example leaves.
        rule: What confidence is: the largest probability, or its distance to the second.
    """

    exits: tuple[Exit, ...]
    rule: Rule = "probability"

    @property
    def used(self) -> tuple[Exit, ...]:
        """Those by which an example may leave."""
        return tuple(exit for exit in self.exits if exit.threshold is not None)

    def text(self) -> str:
        """For the metadata of a model.

        Example:
            >>> ExitPlan((Exit("a", 0.5),)).text()
            '{"rule": "probability", "exits": [{"after": "a", "threshold": 0.5}]}'
        """
        return json.dumps({"rule": self.rule, "exits": [vars(exit) for exit in self.exits]})

    @classmethod
    def from_text(cls, text: str) -> "ExitPlan":
        """Undo `text`, which may come from anywhere.

        Raises:
            ModelError: It is damaged.
        """
        try:
            facts = json.loads(text)
            plan = cls(tuple(map(_exit, facts["exits"])), facts["rule"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"what the model says of its early exits is damaged: {error}") from error
        if plan.rule not in get_args(Rule) or not 0 < len(plan.exits) <= _MOST:
            raise ModelError(
                f"what the model says of its early exits is damaged: {len(plan.exits)} exits by {plan.rule!r}; "
                f"expected 1 or more by {' or '.join(get_args(Rule))}"
            )
        return plan


def _exit(facts: Mapping[str, Any]) -> Exit:
    after, threshold = facts["after"], facts["threshold"]
    if not isinstance(after, str):
        raise TypeError(f"{after!r} is no name")
    if threshold is None:
        return Exit(after)
    if not isinstance(threshold, int | float) or not isfinite(threshold):
        raise TypeError(f"threshold {threshold!r} is no number")
    return Exit(after, float(threshold))


def plan_of(graph: onnx.ModelProto) -> ExitPlan | None:
    """The early exits of a model; None of one without.

    Raises:
        ModelError: What it says of them is damaged, or not in its graph.
    """
    text = metadata(graph).get(EXITS_METADATA)
    if text is None:
        return None

    plan = ExitPlan.from_text(text)
    made = {name for node in graph.graph.node for name in node.output}
    for exit in plan.exits:
        if exit.output not in made:
            raise ModelError(
                f"the model names an early exit after {exit.after}, but nothing makes {exit.output}"
            )
    return plan
