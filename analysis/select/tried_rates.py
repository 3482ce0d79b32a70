"""What searches for the learning rate found, by configuration, batch size and budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.select.fields import row_keys, same_fields, with_fields
from analysis.select.rate_rule import RATE, SEARCH

VALIDATION = "eval/zero_shot/val_font/top1"
SAME_RATE = 1e-3  # relative: rates this close are one

Point = tuple[Any, int]  # a configuration (loss included, learning rate not) and a batch size


@dataclass(frozen=True, kw_only=True)
class Search:
    """Quality by learning rate at one point, in percent, the mean over the seeds of the search.

    Attributes:
      seeds: that searched.
    """

    examples: int
    quality: Mapping[float, float]
    seeds: frozenset[int] = frozenset()

    @property
    def best(self) -> float:
        return max(self.quality, key=lambda rate: self.quality[rate])

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the lowest or the highest tried, so a better may lie beyond."""
        return self.best in (min(self.quality), max(self.quality))

    def shortfall(self, rate: float) -> float:
        """Points from this rate to the best tried, and from a rate that was not tried at least.

        Between two rates tried quality is on the line between them in log(rate), which is below
        a maximum. Beyond them it is that of the nearest.
        """
        rates = sorted(self.quality)
        known = [self.quality[other] for other in rates]
        return self.quality[self.best] - float(np.interp(np.log(rate), np.log(rates), known))


def search_fields(cells: pd.DataFrame) -> list[str]:
    """What the cells of one search share, batch size apart."""
    return same_fields(with_fields(cells, [RATE]), ("batch_size", RATE), ignoring=("budget.",))


def nearest_budget(searches: Mapping[int, Search], examples: float) -> Search:
    """The search whose budget is nearest to this one, by their ratio; of two the longer."""
    far = {budget: abs(math.log(budget / examples)) for budget in sorted(searches, reverse=True)}
    return searches[min(far, key=far.__getitem__)]


def find_searches(cells: pd.DataFrame, metric: str) -> dict[Point, dict[int, Search]]:
    """Every search: a seed that tries at least `SEARCH` rates at one point and budget.

    Of one configuration these are the seeds that do so at most batch sizes: others may have several
    rates at some because rules are compared there.

    Args:
      metric: what judges where the validation split was not measured.

    Returns: by point and examples.
    """
    cells = with_fields(cells, [RATE])
    judge = VALIDATION if VALIDATION in cells else metric
    if judge not in cells:
        return {}
    done = cells[(cells["status"] == "done") & cells[judge].notna() & cells[RATE].notna()]
    keys = row_keys(done, search_fields(cells))
    point = pd.Series(
        list(zip(keys, done["batch_size"], done["examples"], strict=True)),
        index=done.index,
        dtype=object,
    )
    rates = done[RATE].groupby([point, done["seed"]]).transform("nunique")
    done, point = done[rates >= SEARCH], point[rates >= SEARCH]
    key = point.map(lambda one: one[0])
    sizes = done["batch_size"].groupby([key, done["seed"]]).transform("nunique")
    most = sizes.groupby(key).transform("max")
    done, point = done[sizes == most], point[sizes == most]
    searches: dict[Point, dict[int, Search]] = {}
    for (key, size, examples), same in sorted(done.groupby(point), key=lambda item: item[0][2]):
        searches.setdefault((key, int(size)), {})[int(examples)] = Search(
            examples=int(examples),
            quality=same.groupby(RATE)[judge].mean().to_dict(),
            seeds=frozenset(same["seed"].astype(int)),
        )
    return searches
