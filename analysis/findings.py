"""What a test on records found: a verdict by one rule, an estimate, its interval, a sentence.

The rule: reproduced when the 95 % interval lies wholly on the claim's side, contradicted when it
lies wholly on the other, else undecided. A claim with two conditions is reproduced when both
intervals lie on its side and contradicted when one of them lies wholly on the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from analysis.intervals import Interval

Kind = Literal["reproduced", "contradicted", "undecided", "no data"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`cells` is how many cells the estimate rests on; unknown numbers are NaN."""

    verdict: Kind
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    unit: str = ""
    cells: int = 0
    sentence: str


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


def found(verdict: Kind, interval: Interval, *, unit: str, cells: int, sentence: str) -> Finding:
    """A finding with these numbers; the sentence gets the interval, or why there is none."""
    if math.isnan(interval.low):
        ending = " (one seed each, so no interval)."
    else:
        ending = f" (95 % interval {number(interval.low)} to {number(interval.high)})."
    return Finding(
        verdict=verdict,
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        unit=unit,
        cells=cells,
        sentence=sentence + ending,
    )


def number(value: float) -> str:
    """Three digits, or a whole number; nothing where it is not known."""
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
