"""The fixed measuring plans that have a name; imports nothing, so that help texts stay fast."""

from typing import Final, Literal

Profile = Literal["mlperf-tiny"]
MLPERF_TINY: Final = "mlperf-tiny"
