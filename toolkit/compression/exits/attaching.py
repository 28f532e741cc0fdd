"""Giving a network its early exits: as a recipe asks, or as a network file tells."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from torch import nn

from modelpress.export.errors import InputError
from modelpress.toolkit.networks.early_exits import EXITS, EarlyExits, HeadKind, attach_exits, exits_of
from modelpress.toolkit.networks.exit_places import plan_exits
from modelpress.toolkit.networks.inputs import Inputs
from modelpress.toolkit.recipe import ExitOptions, Recipe


@dataclass(frozen=True)
class ExitFacts:
    """What makes the same heads again.

    Attributes:
        after: Names of blocks.
        head: Kind of the heads.
        apart: No gradient flows from them into the network.
    """

    after: tuple[str, ...]
    head: HeadKind
    apart: bool

    @classmethod
    def of(cls, options: ExitOptions) -> "ExitFacts":
        """As a recipe says."""
        return cls(options.after, options.head, options.training == "frozen")


_FACTS: TypeAdapter[ExitFacts | None] = TypeAdapter(ExitFacts | None)


def give_exits(network: nn.Module, inputs: Inputs, facts: ExitFacts) -> EarlyExits:
    """Attach freshly initialised heads.

    Raises:
        InputError: The blocks are not there, or heads do not fit them.
    """
    where = plan_exits(network, inputs, facts.after)
    return attach_exits(network, where, kind=facts.head, apart=facts.apart)


def ask_exits(network: nn.Module, inputs: Inputs, recipe: Recipe) -> None:
    """Attach what a recipe asks for, unless the network has just that already.

    Raises:
        InputError: The network has others, its heads would never be trained, or as in `give_exits`.
    """
    options, exits = recipe.exits, exits_of(network)
    assert options is not None
    if exits is None:
        if recipe.model.checkpoint is not None and not options.epochs:
            raise InputError(
                f"{recipe.model.checkpoint} has no early exits, and exits.epochs is 0: their heads would never be "
                "trained"
            )
        give_exits(network, inputs, ExitFacts.of(options))
        return

    if options.after and set(options.after) != set(exits.after):
        raise InputError(
            f"the checkpoint has exits after {', '.join(exits.after)}, the recipe asks for "
            f"{', '.join(options.after)}: leave out exits.after, or start from a network without exits"
        )
    exits.apart = options.training == "frozen"


def exits_facts(network: nn.Module) -> dict[str, Any]:
    """What a network file says of them; nothing where there are none."""
    exits = exits_of(network)
    return {} if exits is None else {EXITS: vars(ExitFacts(exits.after, exits.kind, exits.apart))}


def exits_told(metadata: Mapping[str, Any]) -> ExitFacts | None:
    """What a network file says of them.

    Raises:
        ValueError: It is damaged.
    """
    return _FACTS.validate_python(metadata.get(EXITS))
