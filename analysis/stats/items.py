"""What the choice of the test examples adds to the variance of a contrast of group means.

Runs (seeds) and test examples (items) are crossed: every cell is evaluated on the same items. The
result of a run on an item is the sum of an effect of the run, of the item, and of both together.
The last, a run's luck with single items, averages over N items, and is in the variance between
seeds already: for recorded studies it is most of it. So the variance of the contrast between items
is added without that part (two-way random effects; Owen 2007 bounds the sum that counts it twice).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from analysis.records.scores import ItemReader, Score

PERCENT = 100.0
CLOSE = 0.01  # points between a metric and the mean of its items: more, and they are not its items


class ItemMeans(NamedTuple):
    """The runs of one group, item by item, in percent.

    Attributes:
      mean_N: over the runs.
      luck: variance of the group's mean from the luck of its runs with single items; NaN for one.
    """

    mean_N: np.ndarray
    luck: float


def read_item_means(
    groups: Mapping[Hashable, Sequence[float]], read_items: ItemReader
) -> dict[Hashable, ItemMeans]:
    """The items of every group; empty unless all its values have those of one test set."""
    found = {}
    for group, values in groups.items():
        read = [_items(value, read_items) for value in values]
        items = [one for one in read if one is not None]
        if len(items) < len(read) or len({len(one) for one in items}) != 1:
            return {}
        items_SxN = np.stack(items)
        seeds, count = items_SxN.shape
        luck = np.nan
        if seeds > 1:
            rest_SxN = items_SxN - items_SxN.mean(axis=0)
            rest_SxN -= rest_SxN.mean(axis=1, keepdims=True)
            luck = float((rest_SxN**2).sum() / ((seeds - 1) * (count - 1)) / (seeds * count))
        found[group] = ItemMeans(items_SxN.mean(axis=0), luck)
    same_size = len({len(one.mean_N) for one in found.values()}) == 1
    return found if same_size else {}


def item_variance(
    weights: Mapping[Hashable, float],
    items: Mapping[Hashable, ItemMeans],
    seeds: Mapping[Hashable, int],
) -> float:
    """What the choice of items adds to the variance of a contrast, at least zero.

    Args:
      weights: of the contrast, by group.
      seeds: the number of runs of each group. A group with one has the luck of the others.
    """
    contrast_N = np.sum([weight * items[g].mean_N for g, weight in weights.items()], axis=0)
    lucks = [one.luck * seeds[g] for g, one in items.items() if np.isfinite(one.luck)]
    usual = float(np.mean(lucks)) if lucks else 0.0
    luck = sum(
        weight**2 * (items[g].luck if np.isfinite(items[g].luck) else usual / seeds[g])
        for g, weight in weights.items()
    )
    return max(0.0, float(np.var(contrast_N, ddof=1)) / len(contrast_N) - luck)


def _items(value: float, read_items: ItemReader) -> np.ndarray | None:
    """The items of a value in percent, `N`; None if they are not recorded."""
    if not isinstance(value, Score):
        return None
    parts = []
    for factor, cell in value.cells:
        hits_N = read_items(cell, value.metric)
        if hits_N is None:
            return None
        parts.append(PERCENT * factor * hits_N)
    if len({len(part) for part in parts}) != 1:
        return None
    items_N: np.ndarray = np.sum(parts, axis=0)
    return items_N if abs(items_N.mean() - value) < CLOSE else None
