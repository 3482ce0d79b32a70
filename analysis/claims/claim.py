"""A claim, the evidence it is tested on, and the verdict on it.

A claim is reproduced when the 95 % interval of its quantity lies above zero, contradicted when it
lies below, else undecided. A claim with several conditions is reproduced when all their intervals
lie above zero, and contradicted when one lies below.

The paper prints numbers without seeds. Their intervals are the bounds that rounding leaves.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from analysis.select.fields import TOP1
from analysis.stats.intervals import Interval, PooledMeans

Kind = Literal["reproduced", "contradicted", "undecided", "no data"]
OURS = "ours"  # the section of claims that are not the paper's
POINTS = "points"
TOLERANCE = 1.0  # points: a smaller gap or gain counts as none
MOST_SEEDS = 100  # a study with more is not proposed


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The cells of a study, and how to read them.

    Compared by identity, so that what several claims share can be cached by the evidence.

    Attributes:
      cells: one row per cell, see `frame.cells`.
      metric: the column of quality, in percent.
      read_rows: reads the logged rows, see `frame.rows`; called when a claim needs curves.
      rounding: of printed values, see `intervals.PooledMeans`; zero for records.
    """

    cells: pd.DataFrame
    metric: str = TOP1
    read_rows: Callable[[], pd.DataFrame] = pd.DataFrame
    rounding: float = 0.0

    @functools.cached_property
    def rows(self) -> pd.DataFrame:
        return self.read_rows()


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A quantity that a verdict rests on, with its own interval."""

    name: str
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
      cells: the number of cells that the estimate rests on.
      sentence: the result in words, each number with its own interval behind it.
      decide: what would decide an undecided claim, or one without data.
      conditions: every quantity that the verdict rests on.
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
    cells: int = 0
    sentence: str
    decide: str = ""
    conditions: tuple[Condition, ...] = ()
    paper: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper in our words, or one of our own, and the test that decides it.

    Attributes:
      section: of the paper, or `OURS`.
      needs: the cells that the test needs, by their fields.
      test: None where the evidence lacks those cells.
    """

    name: str
    sentence: str
    section: str
    needs: str
    test: Callable[[Evidence], Verdict | None]

    def judge(self, evidence: Evidence, *, paper: float = math.nan) -> Verdict:
        """Tests the claim. `paper` is the estimate on the paper's numbers."""
        verdict = self.test(evidence) or Verdict(
            verdict="no data",
            sentence="The study has no finished cells to test this on.",
            decide=self.needs,
        )
        return replace(
            verdict, name=self.name, claim=self.sentence, section=self.section, paper=paper
        )


def verdict_of(*conditions: Interval) -> Kind:
    """The rule for conditions `> 0`, an intersection-union test. Without intervals: undecided."""
    if all(condition.low > 0 for condition in conditions):
        return "reproduced"
    if any(condition.high < 0 for condition in conditions):
        return "contradicted"
    return "undecided"


def conclude(
    interval: Interval,
    means: PooledMeans,
    sentence: str,
    *,
    cells: int,
    unit: str = POINTS,
    scope: str = "",
    conditions: Mapping[str, Interval] | None = None,
    verdict: Kind | None = None,
    to_decide: Interval | None = None,
) -> Verdict:
    """A verdict with these numbers.

    Args:
      interval: the estimate to report, in `unit`.
      means: what the intervals were computed from.
      sentence: without a full stop; numbers with an interval are formatted `Interval`s.
      cells: the number of cells that the estimate rests on.
      scope: budget and batch sizes of the cells, see `scope.scope`.
      conditions: the intervals that are compared with zero, by name; None is `interval` alone.
      verdict: None applies `verdict_of` to the conditions.
      to_decide: the interval that more seeds must tell from zero, if not the conditions.
    """
    conditions = conditions or {unit: interval}
    verdict = verdict or verdict_of(*conditions.values())
    if not interval.has_interval:
        kind = "one seed each, so no interval"
    else:
        kind = "95 % intervals" if means.dof else "bounds of rounding"
    undecided = [to_decide] if to_decide else list(conditions.values())
    return Verdict(
        verdict=verdict,
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        unit=unit,
        cells=cells,
        sentence=f"{sentence} ({f'{scope}; ' if scope else ''}{kind}).",
        decide=_what_decides(undecided, means, cells) if verdict == "undecided" else "",
        conditions=tuple(
            Condition(name=name, estimate=part.estimate, low=part.low, high=part.high)
            for name, part in conditions.items()
        ),
    )


def withhold(verdict: Verdict, *, because: str, decide: str) -> Verdict:
    """The same numbers without a verdict, and the reason in the sentence."""
    return replace(
        verdict, verdict="undecided", sentence=f"{verdict.sentence} {because}", decide=decide
    )


def _what_decides(conditions: Sequence[Interval], means: PooledMeans, cells: int) -> str:
    """How many seeds it would take: an interval shrinks with the root of their number."""
    if not means.has_interval:
        return f"a second seed of each of these {cells} cells"
    if not means.dof:
        return "runs with several seeds, or one more decimal than is printed"
    undecided = [one for one in conditions if verdict_of(one) == "undecided"]
    factor = 0.0
    for interval in undecided:
        half = max(interval.estimate - interval.low, interval.high - interval.estimate)
        factor = max(factor, (half / max(abs(interval.estimate), 1e-12)) ** 2)
    seeds = max(means.seeds + 1, math.ceil(factor * means.seeds))
    if seeds > MOST_SEEDS:
        nearest = min(abs(interval.estimate) for interval in undecided)
        return (
            f"no affordable number of seeds: with the observed spread, {MOST_SEEDS} seeds cannot "
            f"tell {nearest:.3g} from zero"
        )
    return (
        f"about {seeds} seeds of each of these cells instead of {means.seeds}, if effect and "
        "spread stay as observed"
    )
