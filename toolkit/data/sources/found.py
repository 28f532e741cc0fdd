"""What a source holds, before it is split and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import InputError
from modelpress.export.handoff.bundle_files.image_data import PARTS
from modelpress.toolkit.data.data_set import Split
from modelpress.toolkit.data.rows import Array

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Found:
    """Examples of a source.

    Attributes:
        examples: All of them.
        class_names: In the order of the labels; empty where the source has none.
        parts: Numbers of the examples of each part that the source itself names.
        notes: What there is to say of it, a sentence each.
    """

    examples: Split
    class_names: tuple[str, ...] = ()
    parts: Mapping[Part, npt.NDArray[np.int64]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def parts_of(names: Array, where: str) -> dict[Part, npt.NDArray[np.int64]]:
    """Numbers of the examples by the part that each is said to belong to.

    Raises:
        InputError: A part is called otherwise.

    Example:
        >>> {part: rows.tolist() for part, rows in parts_of(np.array(["train", "test", "train"]), "a.csv").items()}
        {'train': [0, 2], 'test': [1]}
    """
    words = [str(name).strip().lower() for name in names.tolist()]
    unknown = next((word for word in words if word not in PARTS), None)
    if unknown is not None:
        raise InputError(f"{where}: split {unknown!r} is unknown; expected train, validation or test")
    meant = np.array([PARTS[word] for word in words])
    return {
        part: np.flatnonzero(meant == part) for part in dict.fromkeys(PARTS.values()) if (meant == part).any()
    }
