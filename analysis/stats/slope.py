"""A straight line through groups of runs, and how sure its slope is.

Two errors are possible: noise between seeds, and a relation that is no line. The interval is the
wider of two t intervals: from the spread within groups, and from the scatter of the groups' means
about the line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from analysis.stats.intervals import LEVEL, Interval

FEWEST_GROUPS = 3


def fit_slope(values: Mapping[float, Sequence[float]]) -> Interval | None:
    """The least-squares slope of the groups' means.

    Args:
      values: by x, one per seed.

    Returns: None with fewer than three groups.
    """
    groups = {x: np.asarray(each, float) for x, each in sorted(values.items()) if len(each)}
    if len(groups) < FEWEST_GROUPS:
        return None
    x_K = np.array(list(groups), float)
    y_K = np.array([each.mean() for each in groups.values()])
    count_K = np.array([len(each) for each in groups.values()])
    weight_K = (x_K - x_K.mean()) / ((x_K - x_K.mean()) ** 2).sum()
    slope = float(weight_K @ y_K)
    residual_K = y_K - y_K.mean() - slope * (x_K - x_K.mean())
    dof = len(x_K) - 2
    halves = [_half(float((residual_K**2).sum()) / dof * float((weight_K**2).sum()), dof)]
    if within := int((count_K - 1).sum()):
        squares = sum(float(((each - each.mean()) ** 2).sum()) for each in groups.values())
        halves.append(_half(squares / within * float((weight_K**2 / count_K).sum()), within))
    return Interval(slope, slope - max(halves), slope + max(halves))


def _half(variance: float, dof: int) -> float:
    """Half of a t interval."""
    return float(stats.t.ppf((1 + LEVEL) / 2, dof)) * variance**0.5
