"""Whether the cells of a comparison ran at their best learning rates, as far as records show.

A study may hold rate searches next to its panels: cells of one or several seeds that differ in the
learning rate alone. Each loss has its own best rate, which follows the batch size in its own way. A
lead at a rate that suits only one loss is not a property of the losses.

The rule: for each batch size of the comparison take the search at that size, else those at the
neighbouring sizes of the panel. (Of several budgets it is the nearest to the panel's.) There the
panel's own rate must not be more than a tolerance below the best rate of the search, judged on the
validation font where that was measured. Else the comparison is undecided.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from analysis.claims.claim import TOLERANCE, Evidence, Verdict, withhold
from analysis.claims.scope import name_sizes
from analysis.select.fields import row_keys
from analysis.select.rate_rule import RATE
from analysis.select.tried_rates import (
    Point,
    Search,
    find_searches,
    nearest_budget,
    search_fields,
)


def check_rates(
    verdict: Verdict,
    evidence: Evidence,
    panel: pd.DataFrame,
    sizes: Collection[int],
    *,
    tolerance: float = TOLERANCE,
) -> Verdict:
    """Adds what the searches show to a comparison of losses; undecided where they found better.

    Args:
      panel: the finished cells that the comparison is chosen from, at all batch sizes.
      sizes: the batch sizes that are compared.
      tolerance: in points, what a better rate may gain.
    """
    if evidence.spread:  # printed numbers come without their rates
        return verdict
    fields = search_fields(evidence.cells)
    examples = float(panel["examples"].astype(float).median())
    by_point = _searches(evidence) if examples > 0 else {}
    searches = {point: nearest_budget(own, examples) for point, own in by_point.items()}
    points = zip(row_keys(panel, fields), panel["batch_size"].astype(int), strict=True)
    ran = dict(zip(points, row_keys(panel, ("loss.kind", RATE)), strict=True))
    compared = {point: _nearest(point, ran, searches) for point in ran if point[1] in sizes}
    found = {point for nearest in compared.values() for point in nearest}
    better, tuned = [], set()
    for point in sorted(found, key=lambda point: (point[1], repr(point[0]))):
        (loss, rate), search, size = ran[point], searches[point], point[1]
        shortfall = search.shortfall(rate)
        if shortfall <= tolerance:
            tuned.add(size)
            continue
        nearest = "" if size in sizes else ", the nearest size with a search,"
        better.append(
            f"at B = {size}{nearest} {loss} ran at {rate:.3g}, and {search.best:.3g} was "
            f"{shortfall:.2f} points better in a search of {search.examples:,} examples"
        )
    if better:
        return withhold(
            verdict,
            because=f"The learning rates were not tuned: {'; '.join(better)}.",
            decide="the same cells at learning rates tuned for each loss at each batch size",
        )
    if not tuned:
        note = "The records hold no other learning rates of these cells."
    else:
        tried = sorted({len(searches[point].quality) for point in found})
        rates = " to ".join(map(str, tried if len(tried) == 1 else (tried[0], tried[-1])))
        note = f"Of {rates} rates tried at {name_sizes(sorted(tuned))} none was more than "
        note += f"{tolerance:.3g} point{'s' * (tolerance != 1)} better for either loss"
        untried = {size for _, size in compared} - {size for _, size in searches}
        if untried:
            note += f"; no others were tried at {name_sizes(sorted(untried))}"
        elif not all(compared.values()):
            note += "; no others were tried for the rest of these cells"
        note += "."
    return replace(verdict, sentence=f"{verdict.sentence} {note}")


@functools.lru_cache(maxsize=2)
def _searches(evidence: Evidence) -> dict[Point, dict[int, Search]]:
    return find_searches(evidence.cells, evidence.metric)


def _nearest(point: Point, ran: Collection[Point], searches: Collection[Point]) -> list[Point]:
    """This point where it was searched, else its neighbours in batch size that were."""
    if point in searches:
        return [point]
    key, size = point
    sizes = sorted(other for same, other in ran if same == key)
    at = sizes.index(size)
    neighbours = [(key, sizes[i]) for i in (at - 1, at + 1) if 0 <= i < len(sizes)]
    return [neighbour for neighbour in neighbours if neighbour in searches]
