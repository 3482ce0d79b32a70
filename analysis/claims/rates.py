"""Whether the cells of a comparison ran at their best learning rates, as far as records show.

A study may hold searches beside its panels: cells of one seed, or of several, that differ in the
learning rate alone. Each loss has a best rate of its own, which follows the batch size in a way of
its own. A lead at a rate that suits one of the losses only is no property of the losses.

The rule: for each batch size of the comparison the search at that size is looked up, else those at
the neighbouring sizes of the panel. (The budgets may differ, as searches are often shorter.) There
the panel's own rate must not be more than `TOLERANCE` points below the best rate of the search,
judged on the validation font where that was measured. Else the comparison is undecided.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.claims.evidence import Evidence
from analysis.claims.verdict import TOLERANCE, Finding, withheld
from analysis.select.fields import keys, same_fields, with_fields
from analysis.select.rate_rule import RATE, SEARCH

VALIDATION = "eval/zero_shot/val_font/top1"
SAME_RATE = 1e-3  # relative: rates this close are one
BUDGETS = "budget."


@dataclass(frozen=True, kw_only=True)
class Search:
    """Rates tried with one configuration at one batch size.

    quality: by rate, in percent, the mean over the seeds of the search.
    """

    examples: int
    quality: dict[float, float]

    @property
    def best(self) -> float:
        return max(self.quality, key=lambda rate: self.quality[rate])

    def shortfall(self, rate: float) -> float | None:
        """Points from this rate to the best one; None where this rate was not tried."""
        tried = [q for other, q in self.quality.items() if abs(other / rate - 1) < SAME_RATE]
        return self.quality[self.best] - tried[0] if tried else None


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What the searches of a study say about the cells of a comparison.

    Attributes:
      better: a phrase for each loss and batch size where another rate was better.
      tuned: batch sizes where no rate of a search was better by more than the tolerance.
      tried: the fewest and the most rates of those searches.
      without: batch sizes of the comparison that have no search of their own.
      partly: whether some cells have no search at their batch size or beside it.
    """

    better: tuple[str, ...]
    tuned: tuple[int, ...]
    tried: tuple[int, int]
    without: tuple[int, ...]
    partly: bool

    @property
    def note(self) -> str:
        """A sentence for a comparison that may be judged."""
        if not self.tuned:
            return "No other learning rates of these cells are in the records."
        few, many = self.tried
        rates = str(few) if few == many else f"{few} to {many}"
        note = f"Of {rates} rates tried at B = {_list(self.tuned)} none was more than "
        note += f"{TOLERANCE:g} point better for either loss"
        if self.without:
            note += f"; no others were tried at B = {_list(self.without)}"
        elif self.partly:
            note += "; no others were tried for the rest of these cells"
        return note + "."


def rate_not_tuned(evidence: Evidence, panel: pd.DataFrame, sizes: Iterable[int]) -> Tuning:
    """Looks up the searches for a comparison of losses.

    Args:
      panel: the finished cells that the comparison is chosen from, at all batch sizes.
      sizes: the batch sizes that are compared.
    """
    cells = with_fields(evidence.cells, [RATE])
    fields = same_fields(cells, ("batch_size", RATE), ignoring=(BUDGETS,))
    searches: dict[tuple[Any, int], Search] = evidence.once(
        "searches", lambda: dict(_searches(cells, fields, evidence.metric))
    )
    # By configuration (loss included) and batch size, the loss and the rate that was run.
    ran = dict(
        zip(
            zip(keys(panel, fields), panel["batch_size"].astype(int), strict=True),
            keys(panel, ("loss.kind", RATE)),
            strict=True,
        )
    )
    sizes = set(sizes)
    compared = [where for where in ran if where[1] in sizes]
    nearest = {where: _nearest(where, ran, searches) for where in compared}
    own = {size for _, size in searches}
    without = tuple(sorted({size for _, size in compared} - own))
    better, tuned, tried = [], set(), []
    looked_up = {point for points in nearest.values() for point in points}
    for where in sorted(looked_up, key=lambda one: (one[1], repr(one[0]))):
        (loss, rate), search = ran[where], searches[where]
        tried.append(len(search.quality))
        shortfall = search.shortfall(rate)
        if shortfall is None or shortfall <= TOLERANCE:
            tuned.add(where[1])
        else:
            beside = ", the nearest size with a search," if where[1] not in sizes else ""
            better.append(
                f"at B = {where[1]}{beside} {loss} ran at {rate:.3g}, and {search.best:.3g} was "
                f"{shortfall:.2f} points better in a search of {search.examples:,} examples"
            )
    return Tuning(
        better=tuple(better),
        tuned=tuple(sorted(tuned)),
        tried=(min(tried, default=0), max(tried, default=0)),
        without=without,
        partly=not all(nearest.values()),
    )


def at_tuned_rates(finding: Finding, tuning: Tuning) -> Finding:
    """The finding with a note on its rates; without a verdict where they were not tuned."""
    if finding.verdict == "no data":
        return finding
    if not tuning.better:
        return replace(finding, sentence=f"{finding.sentence} {tuning.note}")
    return withheld(
        finding,
        because=f"The learning rates were not tuned: {'; '.join(tuning.better)}.",
        decide="the same cells at learning rates tuned for each loss at each batch size",
    )


def _searches(
    cells: pd.DataFrame, fields: list[str], metric: str
) -> Iterator[tuple[tuple[Any, int], Search]]:
    """Every search: a seed that tries at least `SEARCH` rates at one point. The longest counts."""
    judge = VALIDATION if VALIDATION in cells else metric
    if judge not in cells:
        return
    done = cells[(cells["status"] == "done") & cells[judge].notna() & cells[RATE].notna()]
    point = pd.Series(
        list(zip(keys(done, fields), done["batch_size"], done["examples"], strict=True)),
        index=done.index,
        dtype=object,
    )
    tries = done[RATE].groupby([point, done["seed"]]).transform("nunique")
    done, point = done[tries >= SEARCH], point[tries >= SEARCH]
    for (key, size, examples), same in sorted(done.groupby(point), key=lambda one: one[0][2]):
        quality = same.groupby(RATE)[judge].mean().to_dict()
        yield (key, int(size)), Search(examples=int(examples), quality=quality)


def _nearest(
    where: tuple[Any, int], ran: Collection[tuple[Any, int]], searches: Collection[Any]
) -> list[tuple[Any, int]]:
    """This point where it was searched, else the points beside it that were."""
    if where in searches:
        return [where]
    key, size = where
    sizes = sorted(other for same, other in ran if same == key)
    at = sizes.index(size)
    beside = [(key, sizes[i]) for i in (at - 1, at + 1) if 0 <= i < len(sizes)]
    return [point for point in beside if point in searches]


def _list(sizes: Iterable[int]) -> str:
    return ", ".join(map(str, sizes))
