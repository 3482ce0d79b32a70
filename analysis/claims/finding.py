"""What a test on records found: a verdict by one rule, an estimate, its interval, a sentence.

The rule: reproduced when the 95 % interval lies wholly on the claim's side, contradicted when it
lies wholly on the other, else undecided. A claim with several conditions is reproduced when all
intervals lie on its side and contradicted when one of them lies wholly on the other.

On numbers that are printed without seeds the interval is what rounding leaves possible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.intervals import Interval, PooledMeans

Kind = Literal["reproduced", "contradicted", "undecided", "no data"]
POINTS = "points"
TOLERANCE = 1.0  # points: a gap or a gain below it counts as none
MOST_SEEDS = 100  # a study of more is not proposed


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`cells` is how many cells the estimate rests on; unknown numbers are NaN.

    decide: what would decide it, where it is undecided.
    """

    verdict: Kind
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    unit: str = ""
    cells: int = 0
    sentence: str
    decide: str = ""


def no_data(why: str) -> Finding:
    return Finding(verdict="no data", sentence=why)


def side(interval: Interval) -> Kind:
    """Whether an interval lies above zero, below, or holds it. Without ends: undecided."""
    if interval.low > 0:
        return "reproduced"
    if interval.high < 0:
        return "contradicted"
    return "undecided"


def all_positive(*intervals: Interval) -> tuple[Kind, Interval]:
    """The rule for several conditions `> 0`, and the interval that binds: the lowest one."""
    sides = {side(interval) for interval in intervals}
    verdict: Kind = "undecided"
    if sides == {"reproduced"}:
        verdict = "reproduced"
    elif "contradicted" in sides:
        verdict = "contradicted"
    return verdict, min(intervals, key=lambda interval: interval.estimate)


def found(
    verdict: Kind,
    interval: Interval,
    *,
    unit: str,
    cells: int,
    sentence: str,
    means: PooledMeans,
    conditions: Sequence[Interval] = (),
) -> Finding:
    """A finding with these numbers; the sentence gets the interval, or why there is none.

    Args:
      means: what the intervals were computed from.
      conditions: the intervals that were held against zero; empty is `interval` alone.
    """
    return Finding(
        verdict=verdict,
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        unit=unit,
        cells=cells,
        sentence=sentence + _ending(interval, means),
        decide=_decide(conditions or (interval,), means, cells) if verdict == "undecided" else "",
    )


def _ending(interval: Interval, means: PooledMeans) -> str:
    if not interval.known:
        return " (one seed each, so no interval)."
    ends = f"{number(interval.low)} to {number(interval.high)}"
    if not means.dof:
        return f" (as printed: {ends})."
    return f" (95 % interval {ends})."


def _decide(conditions: Sequence[Interval], means: PooledMeans, cells: int) -> str:
    """How many more seeds at the spread that is seen, as an interval shrinks with their root."""
    if not means.known:
        return f"a second seed of each of these {cells} cells"
    if not means.dof:
        return "runs with several seeds, or one more decimal than is printed"
    wanted = 0.0
    for one in conditions:
        if side(one) == "undecided":
            half = max(one.estimate - one.low, one.high - one.estimate)
            wanted = max(wanted, (half / max(abs(one.estimate), 1e-12)) ** 2)
    seeds = max(means.seeds + 1, math.ceil(wanted * means.seeds))
    if seeds > MOST_SEEDS:
        nearest = min(abs(one.estimate) for one in conditions if side(one) == "undecided")
        return (
            f"no affordable number of seeds: {number(nearest)} from the boundary is too little to "
            f"tell from nothing with {MOST_SEEDS} seeds at the spread seen"
        )
    return (
        f"about {seeds} seeds of each of these cells where there are {means.seeds}, if the effect "
        "and the spread stay as seen"
    )


def number(value: float) -> str:
    """Three digits, or a whole number; nothing where it is not known."""
    if math.isnan(value):
        return ""
    value = round(value, 9) + 0.0  # no 8.5e-15, no -0
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
