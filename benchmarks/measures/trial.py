"""One run before many: a model that never ends shows it here, where it is stopped."""

import onnxruntime as ort

from modelpress.benchmarks.subjects.inputs import InputPlan
from modelpress.export.errors import InputError, ModelpressError


def run_once(session: ort.InferenceSession, plan: InputPlan) -> None:
    """Run the smallest batch of a plan.

    Raises:
        InputError: ONNX Runtime refuses it.
        ModelError: It takes too long.
    """
    batch = min(plan.feeds)
    try:
        session.run(None, {feed.name: feed.array() for feed in plan.feeds[batch]})
    except ModelpressError:
        raise
    except Exception as error:  # onnxruntime's exception classes share no public base
        raise InputError(f"batch {batch}: ONNX Runtime failed: {error}") from error
