"""What all sections of a recipe have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Options(BaseModel):
    """A section: unknown keys are refused, values stay as they were given."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
