"""Means over seeds, with t intervals from a variance pooled over a panel.

A group is the cells that differ in the seed alone. Two seeds tell little about the spread of one
group (a t interval with 1 degree of freedom is 12.7 standard errors wide), so all groups of a panel
share one variance, and their degrees of freedom add up.

Assumed: equal variance in every group, and normal, independent errors. Cells of one seed see the
same examples in the same order. If that correlates two groups, the interval of their difference is
too wide. The choice of the test set is not covered.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import optimize, stats

LEVEL = 0.95
Alternative = Literal["two-sided", "greater", "less"]
ASSUMPTION = "variance between seeds pooled over the panel, t interval"


@dataclass(frozen=True, order=True)
class Interval:
    """An estimate and its 95 % interval; the ends are NaN where no group has two seeds.

    Attributes:
      low, high: one of several simultaneous intervals is wider than `standard_error` says.
      standard_error, dof: of the estimate, and the degrees of freedom of its Student's t; NaN where
        the ends are bounds of rounding, or are not those of one contrast (see
        `contrasts.largest`).
    """

    estimate: float
    low: float = math.nan
    high: float = math.nan
    standard_error: float = math.nan
    dof: float = math.nan

    @property
    def has_interval(self) -> bool:
        return not math.isnan(self.low)

    def __neg__(self) -> Interval:
        return replace(self, estimate=-self.estimate, low=-self.high, high=-self.low)

    def shift(self, by: float) -> Interval:
        """The estimate plus a constant, with its interval."""
        ends = {"estimate": self.estimate + by, "low": self.low + by, "high": self.high + by}
        return replace(self, **ends)

    def p_value(self, alternative: Alternative = "two-sided") -> float:
        """Of the t test that the estimate is zero; NaN without a standard error.

        Args:
          alternative: "greater" tests for an estimate above zero, "less" for one below.
        """
        if math.isnan(self.standard_error):
            return math.nan
        distance = {"two-sided": abs, "greater": float, "less": float.__neg__}[alternative]
        if self.standard_error > 0:
            t = distance(self.estimate) / self.standard_error
        else:
            t = math.copysign(math.inf, distance(self.estimate)) if self.estimate else 0.0
        p = float(stats.t.sf(t, self.dof))
        return 2 * p if alternative == "two-sided" else p

    def detectable(self, *, power: float = 0.8, level: float = LEVEL) -> float:
        """The smallest true effect that the two-sided t test finds with this power.

        Args:
          level: 1 minus the rate of false positives; raise it for one of several tests.

        Returns: in the unit of the estimate; NaN without a standard error.
        """
        if math.isnan(self.standard_error):
            return math.nan
        return self.standard_error * _detectable_errors(self.dof, power, level)

    def __format__(self, spec: str) -> str:
        """The estimate with its interval behind it, if it has one: `+1.00 [0.67, 1.33]`.

        `spec` is the format of the estimate, `+.2f` by default.
        """
        spec = spec or "+.2f"
        if not self.has_interval:
            return format(self.estimate, spec)
        ends = spec.removeprefix("+")
        return f"{self.estimate:{spec}} [{self.low:{ends}}, {self.high:{ends}}]"


@functools.cache
def _detectable_errors(dof: float, power: float, level: float) -> float:
    """The effect that a two-sided t test finds with this power, in standard errors.

    The power is the mean over equally likely sample SDs (scipy's noncentral t gives NaN in places).
    """
    dof = min(dof, 1e9)
    critical = float(stats.t.ppf((1 + level) / 2, dof))
    sd_Q = np.sqrt(stats.chi2.ppf((np.arange(1000) + 0.5) / 1000, dof) / dof)

    def excess(effect: float) -> float:
        found_Q = stats.norm.sf(critical * sd_Q - effect) + stats.norm.sf(critical * sd_Q + effect)
        return float(found_Q.mean()) - power

    return float(optimize.brentq(excess, 0.0, 4 * critical + 4))


@dataclass(frozen=True, kw_only=True)
class PooledMeans:
    """Means of groups with one common variance and its degrees of freedom.

    Attributes:
      rounding: half of the last printed digit, for printed numbers without seeds: a bound on their
        error, and their only interval.
    """

    means: Mapping[Any, float]
    counts: Mapping[Any, int]
    variance: float
    dof: int
    rounding: float = 0.0

    @property
    def has_interval(self) -> bool:
        """Whether a contrast has an interval."""
        return self.dof > 0 or self.rounding > 0

    @property
    def seeds(self) -> int:
        """The most common number of seeds of a group."""
        counts = list(self.counts.values())
        return max(set(counts), key=counts.count) if counts else 0

    def contrast(self, weights: Mapping[Any, float], *, critical: float | None = None) -> Interval:
        """The weighted sum of group means, `sum(w * mean)`, with its interval.

        Args:
          weights: by group; other groups have weight zero.
          critical: half-width in standard errors; None is the 95 % quantile of Student's t.
        """
        estimate = math.fsum(w * self.means[g] for g, w in weights.items())
        if not self.has_interval:
            return Interval(estimate)
        half = self.rounding * math.fsum(map(abs, weights.values()))
        if not self.dof:
            return Interval(estimate, estimate - half, estimate + half)
        scale = math.fsum(w * w / self.counts[g] for g, w in weights.items())
        error = math.sqrt(self.variance * scale)
        half += error * (self.critical() if critical is None else critical)
        return Interval(estimate, estimate - half, estimate + half, error, self.dof)

    def mean(self, group: Any) -> Interval:
        return self.contrast({group: 1.0})

    def critical(self, *, comparisons: int = 1, among: int | None = None) -> float:
        """Half-width in standard errors for simultaneous 95 % intervals.

        The smaller of two valid ones: Bonferroni over `comparisons`, and Tukey-Kramer for all
        pairwise differences `among` this many groups (None: other comparisons). The choice depends
        on the numbers of groups and seeds alone, so it keeps the coverage.
        """
        return _critical(comparisons, among, self.dof)


@functools.cache  # the studentized range is a double integral: seconds for all claims
def _critical(comparisons: int, among: int | None, dof: int) -> float:
    if dof == 0:
        return math.nan
    bonferroni = float(stats.t.ppf(1 - (1 - LEVEL) / (2 * comparisons), dof))
    if among is None or comparisons == 1:
        return bonferroni
    tukey = float(stats.studentized_range.ppf(LEVEL, among, dof)) / math.sqrt(2)
    return min(bonferroni, tukey)


def pooled_means(groups: Mapping[Any, Sequence[float]], *, rounding: float = 0.0) -> PooledMeans:
    """The mean of every group, and the variance within groups pooled over all groups.

    Args:
      groups: the values of each group, one per seed; empty groups are left out.
      rounding: see `PooledMeans`.
    """
    values = {g: np.asarray(v, dtype=np.float64) for g, v in groups.items() if len(v)}
    dof = sum(len(v) - 1 for v in values.values())
    squares = math.fsum(float(((v - v.mean()) ** 2).sum()) for v in values.values())
    return PooledMeans(
        means={g: float(v.mean()) for g, v in values.items()},
        counts={g: len(v) for g, v in values.items()},
        variance=squares / dof if dof else math.nan,
        dof=dof,
        rounding=rounding,
    )


def by_group(cells: pd.DataFrame, columns: Sequence[str], value: str) -> dict[Any, list[float]]:
    """The finite values of a column, by the value of one column or the values of several.

    A missing value is None in a key.
    """
    groups: dict[Any, list[float]] = {}
    if value in cells:
        keys = cells[list(columns)].astype(object)
        rows = keys.where(keys.notna(), None).itertuples(index=False, name=None)
        for key, number in zip(rows, cells[value].astype(float), strict=True):
            if np.isfinite(number):
                groups.setdefault(key[0] if len(columns) == 1 else key, []).append(float(number))
    return groups


def paired_differences(
    cells: pd.DataFrame, value: str, *, first: str = "sigmoid", second: str = "softmax"
) -> pd.DataFrame:
    """Loss `first` minus loss `second` in one metric, for each batch size and seed of both.

    Cells of one seed see the same examples in the same order, so their difference is free of
    what that order does to both.

    Returns: columns batch_size, seed, difference; pairs that are not whole are left out.
    """
    if value not in cells:
        return pd.DataFrame({"batch_size": [], "seed": [], "difference": []})
    table = cells.pivot_table(index=["batch_size", "seed"], columns="loss.kind", values=value)
    if not {first, second} <= set(table.columns):
        return pd.DataFrame({"batch_size": [], "seed": [], "difference": []})
    return (table[first] - table[second]).dropna().rename("difference").reset_index()
