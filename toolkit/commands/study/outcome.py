"""What a study hands back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StudyAnswer:
    """A finished study; its files are written.

    Attributes:
        record: What its JSON file holds.
        show: Prints it for people.
    """

    record: dict[str, Any]
    show: Callable[[], None]
