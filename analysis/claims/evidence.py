"""What the claims are tested on: a study's cells and, where a claim needs them, its curves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis.select.panels import TOP1


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The cells of a study, see `frame.cells`, and how to read them.

    metric: the column of quality, in percent.
    read_rows: the logged lines, see `frame.rows`; called when a claim asks for curves.
    rounding: of values that were printed, see `intervals.PooledMeans`; zero for records.
    """

    cells: pd.DataFrame
    metric: str = TOP1
    read_rows: Callable[[], pd.DataFrame] = pd.DataFrame
    rounding: float = 0.0
    made: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for all claims that ask for it under this key."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    @functools.cached_property
    def rows(self) -> pd.DataFrame:
        return self.read_rows()
