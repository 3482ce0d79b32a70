"""Means over seeds, and t intervals of their contrasts from each group's own variance.

A group is the cells that differ in the seed alone. The variance of a contrast is the sum of those
of its groups, and Satterthwaite's formula gives its degrees of freedom, as in Welch's test. Groups
outside the contrast have no part in it. Several intervals at once are Bonferroni's.

Groups of a panel differ in spread up to 40-fold, and one variance for all then covers as little as
44 % where it says 95 %. Variances shrunk towards a common one (limma's empirical Bayes) cover 77 %
where the spread is largest, and the studentized range with unequal variances (Games and Howell
1976) 77 to 95 % of families. Own variances cover 92 to 97 % with three seeds, and mostly more than
95 % with two. `python -m analysis.stats.simulate` compares them; the table is in
`results/bench/statistics.md`.

Where a study recorded which test examples each cell got right, the choice of these examples is part
of the variance, see `analysis.stats.items`. Else the test set is taken as fixed.

Assumed: normal errors, independent between groups. Cells of one seed and batch size share the order
of their examples. Where that correlates two groups the interval of their difference is too wide:
see `paired_differences`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from analysis.records.scores import ItemReader, Score, read_scores
from analysis.stats.items import ItemMeans, item_variance, read_item_means

LEVEL = 0.95
Alternative = Literal["two-sided", "greater", "less"]
UNEQUAL = 0.001  # p of a test of equal variances, from which it is said that they differ
PERCENTAGES = ("/top1", "_r1")  # ends of metrics in percent
ASSUMPTION = "t interval over its own seeds and, where recorded, the test examples"


@dataclass(frozen=True, order=True)
class Interval:
    """An estimate and its 95 % interval; the ends are NaN where no group has two seeds.

    Attributes:
      low, high: one of several simultaneous intervals is wider than `standard_error` says.
      standard_error, dof: of the estimate, and the degrees of freedom of its Student's t; NaN where
        the ends are not those of one contrast (see `contrasts.largest`).
      test_share: the part of the variance that is the choice of test examples; the rest is seeds.
        NaN where the test set is taken as fixed.
      cells: ids of the cells that it rests on, where they are known.
    """

    estimate: float
    low: float = math.nan
    high: float = math.nan
    standard_error: float = math.nan
    dof: float = math.nan
    test_share: float = math.nan
    cells: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    @property
    def has_interval(self) -> bool:
        return not math.isnan(self.low)

    def __neg__(self) -> Interval:
        return replace(self, estimate=-self.estimate, low=-self.high, high=-self.low)

    def shift(self, by: float) -> Interval:
        """The estimate plus a constant, with its interval."""
        return replace(self, estimate=self.estimate + by, low=self.low + by, high=self.high + by)

    def p_value(self, alternative: Alternative = "two-sided") -> float:
        """Of the t test that the estimate is zero; NaN without a standard error.

        Args:
          alternative: "greater" tests for an estimate above zero, "less" for one below.
        """
        if math.isnan(self.standard_error):
            return math.nan
        sides = {"two-sided": abs(self.estimate), "greater": self.estimate, "less": -self.estimate}
        distance = sides[alternative]
        if self.standard_error > 0:
            t = distance / self.standard_error
        else:
            t = math.copysign(math.inf, distance) if distance else 0.0
        p = float(special.stdtr(self.dof, -t))
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


class Spread(NamedTuple):
    """Standard deviation between runs, and its degrees of freedom."""

    sd: float
    dof: int

    def of_difference(self) -> Spread:
        """Of the difference between two runs."""
        return Spread(math.sqrt(2) * self.sd, self.dof)


@dataclass(frozen=True, kw_only=True)
class GroupMeans:
    """Means of groups, each with its own variance between seeds.

    Attributes:
      variances: between the seeds of a group; NaN for one seed.
      items: the test examples of each group; empty where the test set is taken as fixed.
      metric: the column that was averaged, or empty.
      spread: of one value, where no group has two seeds.
      cells: ids of the cells of each group, where they are known.
    """

    means: Mapping[Any, float]
    counts: Mapping[Any, int]
    variances: Mapping[Any, float]
    items: Mapping[Any, ItemMeans] = field(default_factory=dict)
    metric: str = ""
    spread: Spread | None = None
    cells: Mapping[Any, frozenset[str]] = field(default_factory=dict)

    @property
    def dof(self) -> int:
        """Degrees of freedom within all groups."""
        return sum(n - 1 for n in self.counts.values())

    @property
    def every_cell(self) -> frozenset[str]:
        return frozenset[str]().union(*self.cells.values())

    @property
    def variance(self) -> float:
        """Pooled over all groups; NaN where no group has two seeds."""
        squares = ((n - 1) * self.variances[g] for g, n in self.counts.items() if n > 1)
        return math.fsum(squares) / self.dof if self.dof else math.nan

    @property
    def has_interval(self) -> bool:
        """Whether a contrast has an interval."""
        return self.dof > 0 or self.spread is not None

    @property
    def basis(self) -> str:
        """What the intervals cover, in words."""
        if not self.has_interval:
            return "one seed each, so no interval"
        if not self.dof:
            return "one run each; 95 % intervals from the spread of the paper's repeated runs"
        words = "95 % intervals over seeds"
        if self.items:
            words += " and test examples"
        elif self.metric.startswith("eval/"):
            words += ", the test set taken as fixed"
        if (p := self.unequal_variances()) < UNEQUAL:
            words += f"; the groups' variances differ, Bartlett p = {p:.0e}"
        return words

    @property
    def seeds(self) -> int:
        """The most common number of seeds of a group."""
        counts = list(self.counts.values())
        return max(set(counts), key=counts.count) if counts else 0

    def contrast(self, weights: Mapping[Any, float], *, comparisons: int = 1) -> Interval:
        """The weighted sum of group means, `sum(w * mean)`, with its interval.

        Args:
          weights: by group; other groups have weight zero, and no part in the interval.
          comparisons: the number of contrasts whose intervals are to hold all at once
            (Bonferroni). The interval is wider by it, the standard error is not.
        """
        estimate = math.fsum(w * self.means[g] for g, w in weights.items())
        groups = (self.cells.get(g, frozenset()) for g, w in weights.items() if w)
        cells = frozenset[str]().union(*groups)
        if not self.has_interval:
            return Interval(estimate, cells=cells)
        parts, test_share = self._variance_parts(weights), math.nan
        if self.items:
            test = item_variance(weights, self.items, self.counts)
            parts.append((test, float(len(next(iter(self.items.values())).mean_N) - 1)))
            test_share = test / (math.fsum(part for part, _ in parts) or 1.0)
        error, dof = satterthwaite(parts)
        half = error * float(special.stdtrit(dof, 1 - (1 - LEVEL) / (2 * comparisons)))
        return Interval(estimate, estimate - half, estimate + half, error, dof, test_share, cells)

    def mean(self, group: Any) -> Interval:
        """The mean of one group; the interval of a percentage ends at 0 and 100."""
        mean = self.contrast({group: 1.0})
        if not self.metric.endswith(PERCENTAGES):
            return mean
        return replace(mean, low=max(mean.low, 0.0), high=min(mean.high, 100.0))

    def unequal_variances(self) -> float:
        """The p value of Bartlett's test that all groups have one variance; NaN without two.

        Groups without any spread are left out: the test cannot judge them.
        """
        spread = {g: v for g, v in self.variances.items() if v > 0}
        if len(spread) < 2:
            return math.nan
        dof_G = np.array([self.counts[g] - 1 for g in spread])
        variance_G = np.array(list(spread.values()))
        pooled = dof_G @ variance_G / dof_G.sum()
        statistic = dof_G @ np.log(pooled / variance_G)
        scale = 1 + ((1 / dof_G).sum() - 1 / dof_G.sum()) / (3 * (len(spread) - 1))
        return float(stats.chi2.sf(statistic / scale, len(spread) - 1))

    def _variance_parts(self, weights: Mapping[Any, float]) -> list[tuple[float, float]]:
        """Independent parts of a contrast's variance, each with its degrees of freedom.

        Runs of one group differ at least by their luck with single test examples, which many
        examples show well: a smaller variance between few seeds is chance. A group with one seed
        takes the variance pooled over the others, or that of `spread`.
        """
        parts, alone = [], 0.0
        for group, weight in weights.items():
            n = self.counts[group]
            if n > 1:
                variance, dof = self.variances[group] / n, float(n - 1)
                if group in self.items and variance < self.items[group].luck:
                    variance = self.items[group].luck
                    dof *= len(self.items[group].mean_N) - 1
                parts.append((weight**2 * variance, dof))
            else:
                alone += weight**2
        if alone and self.spread and not self.dof:
            parts.append((alone * self.spread.sd**2, float(self.spread.dof)))
        elif alone:
            repeated = {g: n - 1 for g, n in self.counts.items() if n > 1}
            pooled = [(n / self.dof * self.variances[g], float(n)) for g, n in repeated.items()]
            error, dof = satterthwaite(pooled)
            parts.append((alone * error**2, dof))
        return parts


def satterthwaite(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Standard error of a sum and its degrees of freedom (Satterthwaite 1946).

    Args:
      parts: the estimated variance of each independent term, and its degrees of freedom.
    """
    variance = math.fsum(part for part, _ in parts)
    if not variance:
        return 0.0, math.fsum(dof for _, dof in parts)
    return math.sqrt(variance), 1 / math.fsum((part / variance) ** 2 / dof for part, dof in parts)


def group_means(
    groups: Mapping[Any, Sequence[float]],
    *,
    spread: Spread | None = None,
    read_items: ItemReader | None = None,
) -> GroupMeans:
    """The mean and the variance of every group.

    Args:
      groups: the values of each group, one per seed; empty groups are left out.
      spread: of one value, measured elsewhere, for groups of which none has two seeds.
      read_items: reads the test examples of the cells that the values are of; None takes the test
        set as fixed, as do values that are no `Score`s, or lack them.
    """
    groups = {g: values for g, values in groups.items() if len(values)}
    arrays = {g: np.asarray(v, dtype=np.float64) for g, v in groups.items()}
    first = next((value for values in groups.values() for value in values), None)
    return GroupMeans(
        means={g: float(v.mean()) for g, v in arrays.items()},
        counts={g: len(v) for g, v in arrays.items()},
        variances={g: float(v.var(ddof=1)) if len(v) > 1 else math.nan for g, v in arrays.items()},
        items=read_item_means(groups, read_items) if read_items else {},
        metric=first.metric if isinstance(first, Score) else "",
        spread=spread,
        cells={
            g: frozenset(id for v in values if isinstance(v, Score) for _, id in v.cells)
            for g, values in groups.items()
        },
    )


def by_group(cells: pd.DataFrame, columns: Sequence[str], value: str) -> dict[Any, list[Score]]:
    """The finite values of a column, by the value of one column or the values of several.

    A missing value is None in a key.
    """
    groups: dict[Any, list[Score]] = {}
    if value in cells:
        keys = cells[list(columns)].astype(object)
        rows = keys.where(keys.notna(), None).itertuples(index=False, name=None)
        for key, score in zip(rows, read_scores(cells, value), strict=True):
            if math.isfinite(score):
                groups.setdefault(key[0] if len(columns) == 1 else key, []).append(score)
    return groups


def paired_differences(
    cells: pd.DataFrame,
    value: str,
    *,
    by: Sequence[str] = ("batch_size",),
    levels: tuple[str, str] = ("sigmoid", "softmax"),
    axis: str = "loss.kind",
) -> pd.DataFrame:
    """The metric at the first level of the axis minus that at the second, by seed.

    Cells of one seed that differ in the loss alone see the same examples in the same order. In the
    recorded study that correlates them in short runs (0.58 and 0.66 at 65k and 262k examples) and
    from scratch (0.73), where pairs halve the variance of the difference or better, and not in
    long ones (-0.26 at 1.05M). Pairs are right in all three; where they gain nothing, they cost
    half of the degrees of freedom.

    Args:
      by: the columns that must be equal, besides the seed.

    Returns: the columns of `by`, seed and difference, each a `Score`; pairs that are not whole are
      left out, and several cells at one level are averaged.
    """
    found: dict[tuple[Any, ...], dict[Any, Score]] = {}
    if axis in cells:
        for (*key, level), scores in by_group(cells, [*by, "seed", axis], value).items():
            found.setdefault(tuple(key), {})[level] = Score.mean(scores)
    first, second = levels
    keys = [key for key in sorted(found) if first in found[key] and second in found[key]]
    pairs = pd.DataFrame(keys, columns=[*by, "seed"])
    scores = [found[key][first].minus(found[key][second]) for key in keys]
    return pairs.assign(difference=pd.Series(scores, dtype=object))  # floats would lose the cells
