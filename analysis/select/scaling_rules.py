"""Settings tuned at one batch size and carried to others by rules, beside the rate tuned there.

Rules are recognised from the settings of cells, given searches for the learning rate:

- the rate follows B^a, with an exponent that several batch sizes share, or is the best of the
  search there, of several budgets the nearest;
- beta2 is that of the search, or has a half-life in examples (`b2_half_life_examples`);
- the decay is that of the search, or has a time scale in examples (`weight_decay_time_examples`).

A rule that changes beta2 or the decay alone has the rate tuned there; one that changes both is a
whole recipe and has a rate by rule. The batch size that rules start from is the one from which most
rules are recognised.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.select.fields import row_keys, with_fields
from analysis.select.rate_rule import RATE
from analysis.select.tried_rates import (
    SAME_RATE,
    Search,
    find_searches,
    nearest_budget,
    search_fields,
)

B2, B2_HALF_LIFE = "optimizer.b2", "optimizer.b2_half_life_examples"
DECAY, DECAY_TIME = "optimizer.weight_decay", "optimizer.weight_decay_time_examples"
SETTINGS = (RATE, B2, B2_HALF_LIFE, DECAY, DECAY_TIME)
SAME_EXPONENT = 0.005  # rates are written with three digits
SAME_TIME = 0.01  # relative

USUAL = (0.0, 0.5, 1.0)  # exponents

KEPT, HALF_LIFE, OTHER_HALF_LIFE, TIME_SCALE = "kept", "half-life", "other half-life", "time scale"
RATE_WORDS = {None: "tuned rate", 0.0: "one rate", 0.5: "rate ~ root B", 1.0: "rate ~ B"}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the settings of a cell follow from those at another batch size.

    Attributes:
      exponent: of the rate over the batch size; None for the rate tuned there.
      b2: `KEPT`, `HALF_LIFE` (that of the starting point) or `OTHER_HALF_LIFE`.
      decay: `KEPT` or `TIME_SCALE` (that of the starting point).
    """

    exponent: float | None = None
    b2: str = KEPT
    decay: str = KEPT

    @property
    def changed(self) -> int:
        """How many of beta2 and the decay are not kept."""
        return (self.b2 != KEPT) + (self.decay != KEPT)

    @property
    def fitted(self) -> bool:
        """Whether the exponent is none of the usual ones."""
        return self.exponent is not None and self.exponent not in USUAL

    def __str__(self) -> str:
        rate = "rate ~ B^a" if self.fitted else RATE_WORDS[self.exponent]
        if self.changed == 2:
            return f"{rate}, b2, decay"
        return {HALF_LIFE: "b2 half-life", OTHER_HALF_LIFE: "b2, other half-life"}.get(
            self.b2, "decay time" if self.decay == TIME_SCALE else rate
        )


TUNED = Rule()


@dataclass(frozen=True, kw_only=True)
class Transfers:
    """Cells by rule, of one configuration apart from the optimizer and the batch size.

    Attributes:
      at: the batch size that the rules start from.
      cells: with the column "rule". A cell that follows several rules is in several rows.
    """

    at: int
    cells: pd.DataFrame


def transfers(cells: pd.DataFrame, metric: str) -> dict[str, Transfers]:
    """The rules of a study, by loss; empty without searches at several batch sizes.

    A search whose best rate is the lowest or the highest tried does not count: a better one may lie
    beyond. Of several configurations it is the one with most rules.

    Args:
      metric: what judges a search where the validation split was not measured.
    """
    cells = with_fields(cells, SETTINGS)
    searches: dict[Any, dict[int, dict[int, Search]]] = {}
    for (key, size), by_budget in find_searches(cells, metric).items():
        inside = {budget: one for budget, one in by_budget.items() if not one.at_edge}
        if inside:
            searches.setdefault(key, {})[size] = inside
    searched = search_fields(cells)
    rest = [name for name in searched if name not in SETTINGS]
    done = cells[cells["status"] == "done"]
    keys = row_keys(done, rest)
    found: dict[str, Transfers] = {}
    for key, by_size in searches.items():
        base = dict(zip(searched, key, strict=True))
        if len(by_size) < 2 or not pd.isna(base[B2_HALF_LIFE]) or not pd.isna(base[DECAY_TIME]):
            continue
        alike = tuple(base[name] for name in rest)
        tuning = {seed for own in by_size.values() for one in own.values() for seed in one.seeds}
        mine = done[[other == alike for other in keys]]
        mine = mine[mine["batch_size"].isin(list(by_size)) & ~mine["seed"].isin(tuning)]
        by_start = {at: _rules(mine, base, by_size, at) for at in by_size}
        at = max(by_start, key=lambda size: (_count(by_start[size]), -size))
        loss, count = str(base["loss.kind"]), _count(by_start[at])
        if count > (_count(found[loss].cells) if loss in found else 0):
            found[loss] = Transfers(at=at, cells=by_start[at])
    return dict(sorted(found.items()))


def _count(cells: pd.DataFrame) -> int:
    """How many rules, apart from tuning, there are at all batch sizes together."""
    carried = cells[cells["rule"] != TUNED]
    return len(set(zip(carried["rule"], carried["batch_size"], strict=True)))


def _rules(
    cells: pd.DataFrame,
    base: Mapping[str, Any],
    searches: Mapping[int, Mapping[int, Search]],
    at: int,
) -> pd.DataFrame:
    """The cells at other sizes than `at` that follow a rule from there."""
    cells = cells[cells["batch_size"] != at]
    sizes = cells["batch_size"].astype(int).tolist()
    points = list(zip(cells[RATE], sizes, cells["examples"].astype(float), strict=True))
    exponents = [
        round(math.log(rate / nearest_budget(searches[at], n).best) / math.log(size / at), 3)
        for rate, size, n in points
    ]
    tuned = [
        abs(rate / nearest_budget(searches[size], n).best - 1) < SAME_RATE
        for rate, size, n in points
    ]
    carried = zip(exponents, sizes, tuned, strict=True)
    shared = _shared({(exponent, size) for exponent, size, best in carried if not best})
    rows: list[int] = []
    rules: list[Rule] = []
    for row, exponent in enumerate(exponents):
        cell = cells.iloc[row]
        b2, decay = _b2_rule(cell, base, at), _decay_rule(cell, base, at)
        if b2 is None or decay is None:
            continue
        power = next((a for a in shared if abs(a - exponent) < SAME_EXPONENT), None)
        changed = (b2 != KEPT) + (decay != KEPT)
        if tuned[row] and changed < 2:
            rows, rules = [*rows, row], [*rules, Rule(b2=b2, decay=decay)]
        if power is not None and changed != 1:
            rows, rules = [*rows, row], [*rules, Rule(exponent=power, b2=b2, decay=decay)]
    return cells.iloc[rows].assign(rule=pd.Series(rules, dtype=object).to_numpy())


def _shared(points: Iterable[tuple[float, int]]) -> list[float]:
    """The usual exponents, and those of several batch sizes."""
    others = Counter(
        round(exponent, 2)
        for exponent, _ in points
        if all(abs(exponent - a) >= SAME_EXPONENT for a in USUAL)
    )
    return [*USUAL, *(a for a, count in sorted(others.items()) if count > 1)]


def _b2_rule(cell: pd.Series, base: Mapping[str, Any], at: int) -> str | None:
    half_life = cell[B2_HALF_LIFE]
    if pd.isna(half_life):
        return KEPT if cell[B2] == base[B2] else None
    carried = at * math.log(0.5) / math.log(base[B2]) if 0 < base[B2] < 1 else math.inf
    return HALF_LIFE if abs(half_life / carried - 1) < SAME_TIME else OTHER_HALF_LIFE


def _decay_rule(cell: pd.Series, base: Mapping[str, Any], at: int) -> str | None:
    time = cell[DECAY_TIME]
    if pd.isna(time):
        return KEPT if cell[DECAY] == base[DECAY] else None
    return TIME_SCALE if abs(time * base[DECAY] / at - 1) < SAME_TIME else None
