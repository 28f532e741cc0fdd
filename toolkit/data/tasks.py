"""What is learnt: the metric of each task, and what its targets must be like."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from modelpress.benchmarks.measures.metrics import (
    ABSOLUTE_ERROR,
    IGNORED,
    MICRO_F1,
    PLACES,
    TOP1,
    Metric,
)
from modelpress.export.errors import InputError
from modelpress.toolkit.data.names import TaskKind
from modelpress.toolkit.data.options import TaskOptions
from modelpress.toolkit.data.rows import Array
from modelpress.toolkit.user_code import user_function

Checked = Callable[[Array, int, str], Array]


class _Task(NamedTuple):
    metric: Metric
    checked: Checked  # of targets, the number of classes (0: not known), and what they are called in messages


def metric_of(task: TaskOptions) -> Metric:
    """The metric that a task is judged by.

    Raises:
        InputError: The user's own cannot be found.

    Example:
        >>> metric_of(TaskOptions(kind="regression")).name
        'mean absolute error'
    """
    if task.metric is None:
        return TASKS[task.kind].metric
    function = user_function(task.metric, "task.metric")
    name = task.metric.rpartition(":")[2].replace("_", " ")
    return Metric(name, function, lower_is_better=task.lower_is_better, fraction=False)


def checked_targets(
    targets: Mapping[str, Array], task: TaskOptions, *, n_classes: int, where: str
) -> dict[str, Array]:
    """Targets in the type that losses take.

    Args:
        targets: By name.
        task: With a metric of the user's own, only that numbers are finite is asked.
        n_classes: As far as they have names; 0: not known.
        where: They are from, for messages.

    Raises:
        InputError: They are not what the task needs.
    """
    for name, values in targets.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = int(np.argmax(~np.isfinite(values.reshape(len(values), -1)).all(axis=1)))
            raise InputError(f"{where}: {name} of example {row} is NaN or infinite")
    if task.metric is not None or len(targets) > 1:
        return {name: _plain(values) for name, values in targets.items()}
    return {name: TASKS[task.kind].checked(values, n_classes, where) for name, values in targets.items()}


def n_outputs(targets: Array, task: TaskOptions) -> int:
    """How many numbers a network must give for each example, or for each place of a sequence.

    Example:
        >>> n_outputs(np.array([0, 2, 1]), TaskOptions()), n_outputs(np.zeros((5, 4)), TaskOptions(kind="regression"))
        (3, 4)
    """
    if task.kind in ("classification", "sequence"):
        return int(targets.max(initial=0)) + 1
    return int(np.prod(targets.shape[1:]))


def _plain(values: Array) -> Array:
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    return values.astype(np.int64) if values.dtype.kind in "iub" else values


def _whole(values: Array, what: str, where: str) -> Array:
    if values.dtype.kind not in "iub":
        raise InputError(
            f"{where}: {what} have type {values.dtype}; expected whole numbers, from 0 to the number of classes - 1"
        )
    return values.astype(np.int64)


def _in_range(labels: Array, n_classes: int, where: str, *, ignored: bool = False) -> Array:
    bad = (labels < 0) & ((labels != IGNORED) | (not ignored))
    if n_classes:
        bad |= labels >= n_classes
    if bad.any():
        row = int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))
        label = int(labels[bad][0])
        top = f"to {n_classes - 1}" if n_classes else "or more"
        raise InputError(
            f"{where}: example {row} has label {label}; expected 0 {top}"
            + (f", or {IGNORED} where there is none" if ignored else "")
        )
    return labels


def _classes(values: Array, n_classes: int, where: str) -> Array:
    labels = _whole(values, "labels", where)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise InputError(
            f"{where}: labels have shape {labels.shape}; expected one for each example (task: multi-label, or "
            "sequence, takes several)"
        )
    return _in_range(labels, n_classes, where)


def _several(values: Array, n_classes: int, where: str) -> Array:
    if values.ndim != 2 or not np.isin(values, (0, 1)).all():
        raise InputError(
            f"{where}: targets of shape {values.shape}; task multi-label takes 0 or 1 in (n, labels)"
        )
    if n_classes and values.shape[1] != n_classes:
        raise InputError(f"{where}: targets have {values.shape[1]} columns for {n_classes} labels")
    return values.astype(np.float32)


def _numbers(values: Array, n_classes: int, where: str) -> Array:
    if values.dtype.kind not in "iubf":
        raise InputError(f"{where}: targets have type {values.dtype}; expected numbers")
    return values.astype(np.float32).reshape(len(values), -1)


def _places(values: Array, n_classes: int, where: str) -> Array:
    labels = _whole(values, "labels", where)
    if labels.ndim != 2:
        raise InputError(f"{where}: labels have shape {labels.shape}; task sequence takes (n, places)")
    return _in_range(labels, n_classes, where, ignored=True)


TASKS: Mapping[TaskKind, _Task] = MappingProxyType(
    {
        "classification": _Task(TOP1, _classes),
        "multi-label": _Task(MICRO_F1, _several),
        "regression": _Task(ABSOLUTE_ERROR, _numbers),
        "sequence": _Task(PLACES, _places),
    }
)
