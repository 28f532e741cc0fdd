"""The networks that have a name; imports nothing, so that help texts stay fast."""

from typing import Literal

NetworkName = Literal["resnet20", "resnet32", "resnet44", "resnet56"]
Shortcut = Literal["A", "B"]
"""Where the shape changes: A pads with zeros, B projects."""
