"""What the deployable side lets a user choose by name; imports nothing, so that help texts stay fast."""

from enum import StrEnum
from typing import Literal, get_args

Effort = Literal["fast", "default", "max"]
"""How hard a writer tries; see `modelpress.export.press.plan`."""
EFFORTS: tuple[Effort, ...] = get_args(Effort)

FlavourName = Literal["float", "weight-only", "sparse", "int8", "int8-sparse"]
"""ONNX models that can be written; see `modelpress.export.onnx_flavours`."""

INTEGER_FLAVOURS: tuple[FlavourName, ...] = ("int8", "int8-sparse")

DEFAULT_MAX_DECODED_BYTES = 2 << 30  # of the tensors of one artifact
DEFAULT_TIMEOUT_S = 60  # of one check or run of a model from anywhere
CALIBRATION_INPUTS = 512
"""How many inputs calibrate, unless asked otherwise: 128 do about as well as 1,000."""
CALIBRATION_PERCENTILE = 99.99
"""Of the values that each bound of a range covers, where a percentile chooses it, unless asked otherwise."""


class CalibrationMethod(StrEnum):
    """How the range of an activation is chosen from the values seen."""

    MIN_MAX = "min-max"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"
    BEST = "best"
    """By minimum and maximum or by least squared error: as disturbs the outputs of the model less."""


CALIBRATION_METHOD = CalibrationMethod.BEST
"""Unless asked otherwise."""


class Optimise(StrEnum):
    """What the coding of each layer's weights in firmware is chosen by."""

    SIZE = "size"
    SPEED = "speed"


class Arithmetic(StrEnum):
    """How sums become codes in firmware."""

    FLOAT = "float"
    INTEGER = "integer"


class Target(StrEnum):
    """What a folder of firmware is built for where nothing is said."""

    HOST = "host"
    CORTEX_M4 = "cortex-m4"
    CORTEX_M55 = "cortex-m55"


class ExitForm(StrEnum):
    """How a model that is left early is written."""

    ONE_FILE = "one-file"
    STAGES = "stages"
