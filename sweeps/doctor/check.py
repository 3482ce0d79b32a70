"""One finding of `study doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Check:
    """`text` of a warning or failure says what to do."""

    verdict: Literal["ok", "warn", "fail"]
    name: str
    text: str
