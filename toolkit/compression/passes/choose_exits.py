"""Pass: choose the thresholds of early exits on the held-out images, by the network as its file will hold it."""

from collections.abc import Mapping

from modelpress.export.exits.plan import Exit, ExitPlan
from modelpress.export.exits.thresholds import ExitRecord, Point, choose_thresholds
from modelpress.toolkit.compression.exits.costs import costs_of
from modelpress.toolkit.compression.exits.planned import planned
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.networks.early_exits import exits_of, exits_shown
from modelpress.toolkit.training.evaluate import Judged, predict

_FEW = 1000  # held-out images, below which half a point is a handful


def choose_exits(state: NetworkState, work: Work) -> NetworkState:
    """Put the plan into the network's history: the fastest thresholds within the loss that the recipe allows.

    Raises:
        InputError: There are no held-out images.
    """
    exits, options = exits_of(state.network), work.recipe.exits
    if exits is None or options is None:
        return state

    held_out = work.data.validation
    judged = Judged.of(held_out, work.data, work.device.torch_device)
    with exits_shown(exits):
        found = predict(state.compressed(), judged.examples, batch=judged.batch)
    assert isinstance(found, Mapping)  # an output for every exit
    last, *early = found.values()

    costs = costs_of(state.network, exits, state.inputs, overhead=options.overhead)
    record = ExitRecord.of([*early, last], held_out.labels, options.rule, cost=costs.until, heads=costs.heads)
    chosen = choose_thresholds(record, loss=options.loss)
    plan = ExitPlan(
        tuple(Exit.at(name, t) for name, t in zip(exits.after, chosen.thresholds, strict=True)), options.rule
    )

    whole = float(record.right[-1].mean())
    facts = {
        "held_out": len(held_out),
        "loss": options.loss,
        "top1": chosen.top1,
        "last_top1": whole,
        "cost": chosen.cost,
        "macs": costs.macs,
        "costs": list(costs.until),
        "head_costs": list(costs.heads),
    }
    work.progress.note(_told(plan, chosen, whole, f"{len(held_out):,} held-out {work.data.noun}"))
    if len(held_out) < _FEW:
        n = options.loss / 100 * len(held_out)
        work.progress.note(
            f"{options.loss:g} points of {len(held_out):,} {work.data.noun} are {n:.1f}: hold out more"
        )
    return planned(state, plan, facts)


def _told(plan: ExitPlan, chosen: Point, last: float, examples: str) -> str:
    """A line for the terminal."""
    used = ", ".join(f"{exit.after} from {exit.threshold:.3f}" for exit in plan.used) or "none pays"
    return (
        f"exits by {plan.rule}: {used}; {chosen.top1:.2%} of {examples} for {chosen.cost:.2f} of the "
        f"network's cost, {last:.2%} for all of it"
    )
