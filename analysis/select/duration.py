"""Which budgets and batch sizes compare short training with long training (paper Fig. 3)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from analysis.select.deciding import steps_by_size, too_poor, too_short
from analysis.select.panels import Panel, complete_sizes

APART = 32  # 262k over 8k, the two batch sizes of the paper's Fig. 3


@dataclass(frozen=True, kw_only=True)
class LongAndShort:
    """Two budgets in examples, two batch sizes, and all sizes that may decide at both budgets."""

    short: int
    long: int
    small: int
    large: int
    sizes: tuple[int, ...]


def long_and_short(by_budget: Mapping[int, Panel], metric: str) -> LongAndShort | None:
    """The longest budget, and a shorter one, with two batch sizes as the paper's.

    Only batch sizes that may decide at both budgets count (`select.deciding`), with finished cells
    of every loss of the study. Large is the largest, small the one nearest to a 32nd of it. Short
    is the budget whose pair comes nearest to that ratio, the shortest of several. Of quality only
    the floor is looked at.

    Args:
      by_budget: see `panels.by_budget`.
      metric: the column of quality.

    Returns: None if no two budgets share two sizes.
    """
    complete = complete_sizes({budget: panel.cells for budget, panel in by_budget.items()})
    sizes = {
        budget: complete[budget] - _too_short_or_poor(panel.done, metric)
        for budget, panel in by_budget.items()
    }
    budgets = sorted(budget for budget, own in sizes.items() if len(own) > 1)
    choices = []
    for short, long in itertools.product(budgets, budgets[-1:]):
        shared = sorted(sizes[short] & sizes[long])
        if short < long and len(shared) > 1:
            *smaller, large = shared
            small = min(smaller, key=lambda size: (_octaves(large / size), size))
            both = LongAndShort(
                short=short, long=long, small=small, large=large, sizes=tuple(shared)
            )
            choices.append((_octaves(large / small), short, both))
    return min(choices)[2] if choices else None


def _octaves(ratio: float) -> float:
    """How far a ratio of batch sizes is from the paper's, as a factor."""
    return max(ratio, APART) / min(ratio, APART)


def _too_short_or_poor(done: pd.DataFrame, metric: str) -> set[int]:
    short = {*too_short(steps_by_size(done))}
    if metric not in done:
        return short
    best = done.groupby(["batch_size", "loss.kind"])[metric].mean().groupby(level=0).max()
    return short | {*too_poor({int(size): float(value) for size, value in best.items()})}
