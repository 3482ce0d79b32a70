"""The verdict of one claim: the rule, the estimate, its interval, a sentence.

A claim is reproduced when the 95 % interval lies wholly on its side, contradicted when it lies
wholly on the other side, else undecided. A claim with several conditions is reproduced when all
intervals lie on its side, and contradicted when one of them lies wholly on the other.

Printed numbers have no seeds. Their interval is what rounding leaves possible.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from analysis.stats.intervals import Interval, PooledMeans

Kind = Literal["reproduced", "contradicted", "undecided", "no data"]
POINTS = "points"
TOLERANCE = 1.0  # points: a smaller gap or gain counts as none
MOST_SEEDS = 100  # a study of more is not proposed
_SHOWN = re.compile(r"([+-]?\d[\d.]*) \[(-?\d[\d.]*), (-?\d[\d.]*)\]")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One of the quantities that a verdict rests on, with its own interval."""

    name: str
    estimate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A verdict and the numbers behind it; unknown numbers are NaN.

    Attributes:
      estimate, low, high: of the condition that decides, or of the claim's only quantity.
      cells: the number of cells that the estimate rests on.
      sentence: every number with an interval has its own behind it, in brackets.
      decide: what would decide an undecided claim.
      conditions: every quantity that the verdict rests on.
    """

    verdict: Kind
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    unit: str = ""
    cells: int = 0
    sentence: str
    decide: str = ""
    conditions: tuple[Condition, ...] = ()


def no_data(why: str) -> Finding:
    return Finding(verdict="no data", sentence=why)


def verdict_of(interval: Interval) -> Kind:
    """Whether an interval lies above zero, below, or holds it. Without ends: undecided."""
    if interval.low > 0:
        return "reproduced"
    if interval.high < 0:
        return "contradicted"
    return "undecided"


def intersection_union(*intervals: Interval) -> tuple[Kind, Interval]:
    """The rule for several conditions `> 0`, and the interval that binds: the lowest one."""
    sides = {verdict_of(interval) for interval in intervals}
    verdict: Kind = "undecided"
    if sides == {"reproduced"}:
        verdict = "reproduced"
    elif "contradicted" in sides:
        verdict = "contradicted"
    return verdict, min(intervals, key=lambda interval: interval.estimate)


def parse_intervals(text: str) -> list[tuple[float, float, float]]:
    """Every number in a text with an interval behind it, as `Interval` formats them."""
    return [(float(a), float(b), float(c)) for a, b, c in _SHOWN.findall(text)]


def found(
    verdict: Kind,
    interval: Interval,
    *,
    unit: str,
    cells: int,
    sentence: str,
    means: PooledMeans,
    scope: str = "",
    conditions: Mapping[str, Interval] | None = None,
    to_decide: Interval | None = None,
) -> Finding:
    """A finding with these numbers.

    Args:
      sentence: without a full stop; numbers with an interval are formatted `Interval`s.
      means: what the intervals were computed from.
      scope: budget and batch sizes of the cells, see `scope.scope`.
      conditions: the intervals that were compared with zero, by what they are of; None is
        `interval` alone.
      to_decide: what more seeds must tell from zero, if not the conditions.
    """
    held = conditions or {unit: interval}
    still_open = [to_decide] if to_decide else list(held.values())
    notes = "; ".join(note for note in (scope, _kind_of_interval(interval, means)) if note)
    return Finding(
        verdict=verdict,
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        unit=unit,
        cells=cells,
        sentence=f"{sentence} ({notes}).",
        decide=_decide(still_open, means, cells) if verdict == "undecided" else "",
        conditions=tuple(
            Condition(name=name, estimate=one.estimate, low=one.low, high=one.high)
            for name, one in held.items()
        ),
    )


def withheld(finding: Finding, *, because: str, decide: str) -> Finding:
    """The same numbers without a verdict, and the reason in the sentence."""
    return replace(
        finding, verdict="undecided", sentence=f"{finding.sentence} {because}", decide=decide
    )


def _kind_of_interval(interval: Interval, means: PooledMeans) -> str:
    if not interval.has_interval:
        return "one seed each, so no interval"
    return "95 % intervals" if means.dof else "bounds of the rounding"


def _decide(conditions: Sequence[Interval], means: PooledMeans, cells: int) -> str:
    """How many seeds it would take: an interval shrinks with the root of their number."""
    if not means.has_interval:
        return f"a second seed of each of these {cells} cells"
    if not means.dof:
        return "runs with several seeds, or one more decimal than is printed"
    wanted = 0.0
    open_ones = [one for one in conditions if verdict_of(one) == "undecided"]
    for one in open_ones:
        half = max(one.estimate - one.low, one.high - one.estimate)
        wanted = max(wanted, (half / max(abs(one.estimate), 1e-12)) ** 2)
    seeds = max(means.seeds + 1, math.ceil(wanted * means.seeds))
    if seeds > MOST_SEEDS:
        nearest = min(abs(one.estimate) for one in open_ones)
        return (
            f"no affordable number of seeds: {format_number(nearest)} from the boundary is too "
            f"little to tell from nothing with {MOST_SEEDS} seeds at the spread seen"
        )
    return (
        f"about {seeds} seeds of each of these cells where there are {means.seeds}, if the effect "
        "and the spread stay as seen"
    )


def format_number(value: float) -> str:
    """Three digits, or a whole number; nothing where it is not known."""
    if math.isnan(value):
        return ""
    value = round(value, 9) + 0.0  # no 8.5e-15, no -0
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
