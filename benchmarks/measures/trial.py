"""One run before many: a model that never ends shows it here, where it is stopped."""

from collections.abc import Callable, Sequence

import onnxruntime as ort

from modelpress.benchmarks.subjects.feeding import LENGTHS, Feed, InputPlan, calls_with, plan_inputs
from modelpress.benchmarks.subjects.given import Array, Given
from modelpress.benchmarks.subjects.inputs import InputSpec
from modelpress.export.errors import InputError
from modelpress.export.runtime import run_feed


def run_once(session: ort.InferenceSession, plan: InputPlan) -> None:
    """Run the smallest batch of a plan.

    Raises:
        InputError: ONNX Runtime refuses it.
        ModelError: It takes too long.
    """
    batch = min(plan.feeds)
    try:
        run_feed(session, arrays_of(plan.feeds[batch]))
    except InputError as error:
        raise InputError(f"batch {batch}: {error}") from error


def plan_that_runs(
    session: Callable[[], ort.InferenceSession],
    file: str,
    specs: Sequence[InputSpec],
    given: Given,
    batches: Sequence[int],
) -> InputPlan:
    """What every timed call is fed with, see `plan_inputs`: where axes may have any length, the first that runs.

    Args:
        session: Opens the model, where lengths are to be tried.
        file: As for `plan_inputs`, as are the others.
        specs: As there.
        given: As there.
        batches: As there.

    Raises:
        InputError: As there.
        ModelError: It takes too long.
    """
    plan = plan_inputs(file, specs, given, batches)
    if plan == plan_inputs(file, specs, given, batches, length=LENGTHS[-1]):
        return plan

    opened = session()
    for length in LENGTHS:
        tried = plan_inputs(file, specs, given, batches, length=length)
        try:
            run_once(opened, tried)
        except InputError:
            continue
        return tried
    return plan  # whoever times it hears why it does not run


def calls_that_run(
    session: ort.InferenceSession, file: str, specs: Sequence[InputSpec], given: Given, *, n_made: int = 1
) -> list[list[Feed]]:
    """Calls of a model, see `calls_with`, the first of which ran: lengths of free axes are tried in turn.

    Raises:
        InputError: Nothing can be made for an input, or ONNX Runtime refuses the first call whatever the lengths; what
            it said of the first of them is told.
        ModelError: It takes too long.
    """
    first = None
    for length in LENGTHS:
        calls = calls_with(file, specs, given, n_made=n_made, length=length)
        try:
            run_feed(session, arrays_of(calls[0]))
        except InputError as error:
            first = first or error
            if calls == calls_with(file, specs, given, n_made=n_made, length=length + 1):
                break  # no axis is free
        else:
            return calls

    assert first is not None  # there are lengths
    raise first


def arrays_of(feeds: Sequence[Feed]) -> dict[str, Array]:
    """What the runtime gets."""
    return {feed.name: feed.array() for feed in feeds}
