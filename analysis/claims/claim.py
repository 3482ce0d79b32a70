"""A claim, the evidence it is tested on, and the verdict on it.

A claim says of one or several quantities, its conditions, that they are above zero. It is
reproduced when they are, contradicted when they are not, and undecided when the data cannot tell.
Both directions are one-sided t tests, the verdict is their two-sided p-value:

- All conditions must hold (`all_above`). Each must be shown by its own test, so the largest p
  counts, without an adjustment: an intersection-union test (Berger 1982). The claim is false
  when one of the k fails. That is shown by Holm's smallest p, k times the smallest.
- One condition must hold (`any_above`): the mirror image.

Over all claims of one call of `judge`, p-values are adjusted by Benjamini and Hochberg (1995), and
the adjusted one decides: of the decided verdicts about one in twenty is expected to be wrong.

The paper prints numbers of one run each. Their intervals are from the spread of its repeated runs,
see `as_cells.run_spread`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import pandas as pd
from scipy import stats

from analysis.records.scores import ItemReader
from analysis.select.fields import TOP1
from analysis.stats.intervals import LEVEL, GroupMeans, Interval, Spread, group_means

Kind = Literal["reproduced", "contradicted", "undecided", "no data"]
OURS = "ours"  # the section of claims that are not the paper's
POINTS = "points"
TOLERANCE = 1.0  # points: a smaller gap or gain counts as none
RATE = 1 - LEVEL  # of false discoveries among the decided verdicts


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The cells of a study, and how to read them.

    Compared by identity, so that what several claims share can be cached by the evidence.

    Attributes:
      cells: one row per cell, see `frame.cells`.
      metric: the column of quality, in percent.
      read_rows: reads the logged rows, see `frame.rows`; called when a claim needs curves.
      spread: of one value, measured elsewhere, for printed numbers; None for records.
      read_items: reads which test examples a cell got right, see `frame.item_reader`.
    """

    cells: pd.DataFrame
    metric: str = TOP1
    read_rows: Callable[[], pd.DataFrame] = pd.DataFrame
    spread: Spread | None = None
    read_items: ItemReader = lambda cell, metric: None

    @functools.cached_property
    def rows(self) -> pd.DataFrame:
        return self.read_rows()

    def means(
        self, groups: Mapping[Any, Sequence[float]], *, differences: bool = False
    ) -> GroupMeans:
        """The means of groups of scores, see `intervals.group_means`.

        Args:
          differences: whether each score is of two cells, and has the spread of both.
        """
        spread = self.spread.of_difference() if self.spread and differences else self.spread
        return group_means(groups, spread=spread, read_items=self.read_items)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A quantity that a verdict rests on, with its own interval.

    p: of the two-sided test that it is zero, adjusted by Holm for the conditions of the claim.
    test_share: the part of its variance that is the choice of test examples, see `Interval`.
    """

    name: str
    estimate: float
    low: float
    high: float
    p: float = math.nan
    test_share: float = math.nan


@dataclass(frozen=True, kw_only=True)
class AtBudget:
    """The same test at another budget of examples; its verdict is by its own p-value alone."""

    examples: int
    verdict: Kind
    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on one claim and the numbers behind it; unknown numbers are NaN.

    Attributes:
      name, claim, section: of the claim: its name, its sentence, the section of the paper.
      estimate, low, high: of the condition that decides, or of the claim's only quantity.
      unit: of these three.
      p: two-sided, of the claim. adjusted_p: for all claims judged with it, see `adjust`.
      detectable: the smallest true effect that this design finds with 80 % power (two-sided, 5 %),
        in `effect_unit`.
      evidence: ids of the cells that these numbers rest on, sorted. cells: how many they are.
      sentence: the result in words, each number with its own interval behind it.
      decide: what would decide an undecided claim, or one without data.
      withheld: whether the cells cannot decide the claim, whatever its p.
      conditions: every quantity that the verdict rests on.
      budgets: the same test at other budgets, of a claim about one.
      paper: the same estimate on the paper's own numbers.
    """

    name: str = ""
    claim: str = ""
    section: str = ""
    verdict: Kind
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    unit: str = ""
    p: float = math.nan
    adjusted_p: float = math.nan
    detectable: float = math.nan
    effect_unit: str = ""
    cells: int = 0
    sentence: str
    decide: str = ""
    withheld: bool = False
    conditions: tuple[Condition, ...] = ()
    budgets: tuple[AtBudget, ...] = ()
    paper: float = math.nan
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper in our words, or one of our own, and the test that decides it.

    Attributes:
      section: of the paper, or `OURS`.
      needs: the cells that the test needs, by their fields.
      test: None where the evidence lacks those cells.
      figure: the name of the figure that shows what is tested, if there is one.
    """

    name: str
    sentence: str
    section: str
    needs: str
    test: Callable[[Evidence], Verdict | None]
    figure: str = ""

    def judge(self, evidence: Evidence, *, paper: float = math.nan) -> Verdict:
        """Tests this claim alone, see `adjust`. `paper` is the estimate on the paper's numbers."""
        verdict = self.test(evidence) or Verdict(
            verdict="no data",
            sentence="The study has no finished cells to test this on.",
            decide=self.needs,
        )
        return replace(
            verdict, name=self.name, claim=self.sentence, section=self.section, paper=paper
        )


class OneSided(NamedTuple):
    """The p-values of two one-sided tests: that something holds, and that it does not."""

    above: float
    below: float

    @property
    def two_sided(self) -> float:
        return min(1.0, 2 * min(self))

    @property
    def verdict(self) -> Kind:
        if self.two_sided > RATE:
            return "undecided"
        return "reproduced" if self.above < self.below else "contradicted"


def one_sided(part: Interval | OneSided) -> OneSided:
    """Of an interval; without a standard error nothing is shown."""
    if isinstance(part, OneSided):
        return part
    if math.isnan(part.standard_error):
        return OneSided(1.0, 1.0)
    return OneSided(part.p_value("greater"), part.p_value("less"))


def all_above(parts: Iterable[Interval | OneSided]) -> OneSided:
    """Of "all are above zero": an intersection-union test for it, Holm against it."""
    above, below = zip(*map(one_sided, parts), strict=True)
    return OneSided(max(above), min(1.0, len(below) * min(below)))


def any_above(parts: Iterable[Interval | OneSided]) -> OneSided:
    """Of "at least one is above zero": Holm for it, an intersection-union test against it."""
    above, below = zip(*map(one_sided, parts), strict=True)
    return OneSided(min(1.0, len(above) * min(above)), max(below))


def weakest(conditions: Mapping[str, Interval]) -> str:
    """The condition that is least above zero in standard errors, so that units do not count.

    By p-value, as the standard errors have different degrees of freedom.
    """

    def standing(name: str) -> tuple[float, float]:
        above, below = (math.log(max(p, 5e-324)) for p in one_sided(conditions[name]))
        return below if below < above else -above, conditions[name].estimate

    return min(conditions, key=standing)


def conclude(
    interval: Interval,
    means: GroupMeans,
    sentence: str,
    *,
    unit: str = POINTS,
    effect_unit: str = "",
    scope: str = "",
    conditions: Mapping[str, Interval] | None = None,
    p_values: OneSided | None = None,
) -> Verdict:
    """A verdict with these numbers.

    Args:
      interval: the estimate to report, in `unit`.
      means: what the intervals were computed from.
      sentence: without a full stop; numbers with an interval are formatted `Interval`s.
      effect_unit: of the conditions, where it is not `unit`.
      scope: budget and batch sizes of the cells, see `scope.scope`.
      conditions: what the claim says is above zero, by name; None is `interval` alone.
      p_values: of the claim; None says that all conditions must hold.
    """
    conditions = conditions or {unit: interval}
    p_values = p_values or all_above(conditions.values())
    tested = not any(math.isnan(part.standard_error) for part in conditions.values())
    adjusted = holm(conditions.values()) if tested else [math.nan] * len(conditions)
    weak = interval if interval.standard_error >= 0 else conditions[weakest(conditions)]
    evidence = sorted(interval.cells.union(*(part.cells for part in conditions.values())))
    return Verdict(
        verdict=p_values.verdict,
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        unit=unit,
        p=p_values.two_sided if tested else math.nan,
        detectable=weak.detectable(),
        effect_unit=effect_unit or unit,
        cells=len(evidence),
        sentence=f"{sentence} ({f'{scope}; ' if scope else ''}{means.basis}).",
        conditions=tuple(
            Condition(
                name=name,
                estimate=part.estimate,
                low=part.low,
                high=part.high,
                p=p,
                test_share=part.test_share,
            )
            for (name, part), p in zip(conditions.items(), adjusted, strict=True)
        ),
        evidence=tuple(evidence),
    )


def holm(parts: Iterable[Interval]) -> list[float]:
    """Two-sided p-values of several conditions, adjusted by Holm for their number."""
    p_values = [one_sided(part).two_sided for part in parts]
    adjusted, largest = p_values.copy(), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def withhold(verdict: Verdict, *, because: str, decide: str) -> Verdict:
    """The same numbers without a verdict, and the reason in the sentence."""
    sentence = f"{verdict.sentence} {because}"
    return replace(verdict, verdict="undecided", sentence=sentence, decide=decide, withheld=True)


def adjust(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts by p-values adjusted for the false discovery rate over all of them.

    Claims without a p-value (no data, one seed) are not in the family. A
    withheld claim counts with p = 1: it cannot be decided, whatever its p. Of what is left
    undecided each says which effect its design would find.
    """
    tested = [v for v in verdicts if not math.isnan(v.p)]
    p_values = [1.0 if v.withheld else v.p for v in tested]
    adjusted = iter(stats.false_discovery_control(p_values) if tested else ())
    found = []
    for v in verdicts:
        if not math.isnan(v.p):
            v = replace(v, adjusted_p=float(next(adjusted)))
            if v.adjusted_p > RATE:
                v = replace(v, verdict="undecided")
        if v.verdict == "undecided" and not v.decide:
            v = replace(v, decide=_what_decides(v))
        found.append(v)
    return found


def _what_decides(verdict: Verdict) -> str:
    if math.isnan(verdict.low):
        return f"a second seed of each of these {verdict.cells} cells"
    effect = f"{verdict.detectable:.3g} {verdict.effect_unit}"
    return f"more seeds: this design finds an effect of {effect} with 80 % power, not a smaller one"
