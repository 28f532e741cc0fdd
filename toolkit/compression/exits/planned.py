"""What has been decided of a network's early exits: kept in its history, written into its file."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelpress.export.exits.plan import Exit, ExitPlan
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.networks.early_exits import exits_of

THRESHOLDS = "thresholds"  # in the history


def exit_plan(state: NetworkState) -> ExitPlan | None:
    """The exits of a network, without thresholds where none have been chosen; None of one without exits."""
    exits = exits_of(state.network)
    if exits is None:
        return None
    facts = state.history.get(THRESHOLDS)
    if facts is None:
        return ExitPlan(tuple(map(Exit, exits.after)))
    return ExitPlan.from_text(str(facts["plan"]))


def planned(state: NetworkState, plan: ExitPlan, facts: Mapping[str, Any]) -> NetworkState:
    """The network with a plan, and what it was chosen by."""
    return replace(state, history={**state.history, THRESHOLDS: {"plan": plan.text(), **facts}})
