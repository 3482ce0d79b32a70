"""What all values of a cell share: how they are checked, and the mark of later fields."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field

CONFIG = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)

# A field added after records exist carries this mark: it is left out of the hash at its default,
# so that adding it does not orphan the records of cells that never used it.
ADDED_LATER = {"added_later": True}

Positive = Annotated[int, Field(gt=0)]
# A seed is one 32-bit word on the devices, where it keys random numbers.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, le=1)]
