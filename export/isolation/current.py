"""Which process jobs on models from anywhere go to; apart from the process itself, which not everybody needs."""

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelpress.export.isolation.foreign import ForeignProcess

CURRENT: ContextVar["ForeignProcess | None"] = ContextVar("foreign process", default=None)


def foreign_process() -> "ForeignProcess | None":
    """The process of the innermost `foreign_work`; None outside."""
    return CURRENT.get()
