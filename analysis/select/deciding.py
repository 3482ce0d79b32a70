"""Which batch sizes may decide a claim about the batch size alone.

At a fixed number of examples a larger batch takes fewer steps. A batch size whose runs were too
short to learn shows that they were short, not what the batch size does, and near zero quality all
batch sizes and losses are level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

# Of 500 steps, 5 % of warm-up are 25, and the schedule still has time to decay. A run of 64 steps
# has barely left its initial values.
FEWEST_STEPS = 500
FLOOR = 0.25  # of the best quality: below it little has been learned


def examples_of(cells: pd.DataFrame) -> list[float]:
    """The budget of each cell in examples; NaN where it is unknown."""
    examples = cells["examples"].astype(float)
    if "budget.examples" in cells:
        examples = cells["budget.examples"].astype(float).fillna(examples)
    return examples.tolist()


def steps_by_size(cells: pd.DataFrame) -> dict[int, int]:
    """Optimizer steps of a run by batch size; sizes without a known budget are left out."""
    return {
        int(size): int(examples // size)
        for size, examples in zip(cells["batch_size"], examples_of(cells), strict=True)
        if math.isfinite(examples)
    }


def too_short(steps: Mapping[int, int]) -> list[int]:
    """The batch sizes with fewer than `FEWEST_STEPS` steps, rising."""
    return sorted(size for size, count in steps.items() if count < FEWEST_STEPS)


def too_poor(quality: Mapping[int, float]) -> list[int]:
    """The batch sizes below `FLOOR` of the best quality, rising."""
    least = FLOOR * max(quality.values(), default=0.0)
    return sorted(size for size, value in quality.items() if value < least)
