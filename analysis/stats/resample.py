"""Bootstrap draws of the means of a panel, over seeds and over evaluated examples.

Seeds: all groups share one variance. Each draw takes a variance
from its distribution given the pooled estimate, so few seeds make wide intervals.
Examples: all cells were evaluated on the same examples, so each resample of them is used for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.stats.intervals import group_means

DRAWS = 1000
LEVEL = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True)
class MeanDraws:
    """Means by level, with draws of them.

    Attributes:
      levels_K: batch sizes, rising.
      mean_K, count_K: mean and number of seeds of each level.
      sd, dof: standard deviation between seeds, pooled, and its degrees of freedom.
      drawn_RxK: the draws; None if no level has two seeds.
    """

    levels_K: np.ndarray
    mean_K: np.ndarray
    count_K: np.ndarray
    sd: float
    dof: int
    drawn_RxK: np.ndarray | None


def draw_means(
    values: Mapping[int, Sequence[float]],
    *,
    items: Mapping[int, np.ndarray] | None = None,
    spread: tuple[float, int] | None = None,
    seed: int = 0,
    number: int = DRAWS,
) -> MeanDraws:
    """Draws the mean of every level.

    Args:
      values: by level, one per seed.
      items: by level, the percentage of its cells that got each evaluated example right, `N`; the
        same examples for every level. None keeps the test set fixed.
      spread: standard deviation between seeds and its degrees of freedom, measured elsewhere, for
        values of one seed.
    """
    pooled = group_means(values)
    sd, dof = math.sqrt(pooled.variance) if pooled.dof else math.nan, pooled.dof
    if spread is not None and not dof:
        sd, dof = spread
    levels = sorted(pooled.means)
    mean_K = np.array([pooled.means[level] for level in levels])
    count_K = np.array([pooled.counts[level] for level in levels])
    found = MeanDraws(
        levels_K=np.array(levels, dtype=float),
        mean_K=mean_K,
        count_K=count_K,
        sd=sd,
        dof=dof,
        drawn_RxK=None,
    )
    if not dof:
        return found
    rng = np.random.default_rng(seed)
    drawn = mean_K + seed_noise(rng, sd, dof, count_K, number)
    if items is not None and set(items) >= set(levels):
        drawn = drawn + item_noise(rng, np.stack([items[level] for level in levels]), number)
    return MeanDraws(**{**vars(found), "drawn_RxK": drawn})


def seed_noise(
    rng: np.random.Generator, sd: float, dof: int, count_K: np.ndarray, number: int
) -> np.ndarray:
    """Errors of means over seeds, `R x K`."""
    spread_Rx1 = sd * np.sqrt(dof / rng.chisquare(dof, (number, 1)))
    return spread_Rx1 * rng.standard_normal((number, len(count_K))) / np.sqrt(count_K)


def item_noise(rng: np.random.Generator, share_KxN: np.ndarray, number: int) -> np.ndarray:
    """Errors of means from the choice of evaluated examples, `R x K`."""
    n = share_KxN.shape[1]
    weight_RxN = rng.multinomial(n, np.full(n, 1 / n), size=number)
    return (weight_RxN @ share_KxN.T) / n - share_KxN.mean(axis=1)


def interval(values_R: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of draws; some may be infinite."""
    low, high = np.quantile(values_R, LEVEL, method="inverted_cdf")
    return float(low), float(high)
