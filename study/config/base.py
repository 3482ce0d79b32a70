"""Field types and pydantic settings that all config dataclasses share."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field

CONFIG = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
# A seed keys the random numbers of the devices, which take 32 bits.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
