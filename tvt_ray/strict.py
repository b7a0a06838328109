"""What all settings have in common."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy's, Optuna's and PyTorch's generators all take


class Strict(BaseModel):
    """Values that do not change: keys that are not known are refused, as are numbers without end and no numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
