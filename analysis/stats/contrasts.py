"""Weights of contrasts of group means, and intervals of the largest of several contrasts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from analysis.stats.intervals import Interval

Weights = dict[Any, float]  # by group; the contrast is the weighted sum of the groups' means
QUARTER = 0.25  # of the effect that a claim is about: less of it counts as little, or as level


def mean_weights(groups: Iterable[Any]) -> Weights:
    """The mean over these groups."""
    groups = list(groups)
    return dict.fromkeys(groups, 1 / len(groups))


def slope_weights(x: Mapping[Any, float]) -> Weights:
    """The least-squares slope of the groups' means against `x`."""
    middle = sum(x.values()) / len(x)
    spread = sum((value - middle) ** 2 for value in x.values())
    return {group: (value - middle) / spread for group, value in x.items()}


def combine(*parts: tuple[float, Mapping[Any, float]]) -> Weights:
    """The sum of several contrasts, each times its factor.

    >>> combine((1.0, {"a": 1.0}), (-0.5, {"a": 1.0, "b": 1.0}))
    {'a': 0.5, 'b': -0.5}
    """
    total: Weights = {}
    for factor, weights in parts:
        for group, weight in weights.items():
            total[group] = total.get(group, 0.0) + factor * weight
    return total


def quarter_of_rise(quality: Mapping[int, float]) -> Weights:
    """A quarter of the rise of quality with the batch size: the gain that counts as none.

    The rise is from the lowest to the highest mean; sizes beyond the highest do not enter. It is a
    contrast like others, so its own error counts; that the two means were picked does not.

    Args:
      quality: the mean by batch size.
    """
    top = max(quality, key=quality.__getitem__)
    bottom = min((size for size in quality if size <= top), key=quality.__getitem__)
    return combine((QUARTER, {top: 1.0}), (-QUARTER, {bottom: 1.0}))


def largest(intervals: Iterable[Interval]) -> Interval:
    """The interval of the largest of several quantities with simultaneous intervals.

    The largest lower end bounds the largest true value from below, whichever that is, so the
    choice of the best costs no coverage. Estimate and ends may be of different quantities, so
    it has no standard error.
    """
    return _extreme(max, intervals)


def smallest(intervals: Iterable[Interval]) -> Interval:
    """As `largest`, of the smallest."""
    return _extreme(min, intervals)


def _extreme(choose: Callable[[Iterable[float]], float], intervals: Iterable[Interval]) -> Interval:
    intervals = list(intervals)
    return Interval(
        estimate=choose(one.estimate for one in intervals),
        low=choose(one.low for one in intervals),
        high=choose(one.high for one in intervals),
        cells=frozenset[str]().union(*(one.cells for one in intervals)),
    )
