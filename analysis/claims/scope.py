"""What a claim was tested on, in words: budget, batch sizes, steps."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

FEWEST_STEPS = 500
"""A cell with fewer steps says nothing about its batch size alone.

At a fixed number of examples a larger batch takes fewer steps. Of 500 steps, 5 % of warm-up are
25, and the schedule still has time to decay; a run of 64 steps has barely left its initial values,
whatever its batch.
"""


def scope(cells: pd.DataFrame) -> str:
    """Budget and batch sizes of cells: "262,144 examples, B = 64 to 4096"."""
    parts = []
    budgets = sorted({examples for examples in _examples(cells) if math.isfinite(examples)})
    if budgets:
        parts.append(f"{' or '.join(f'{int(budget):,}' for budget in budgets)} examples")
    sizes = sorted(set(cells["batch_size"]))
    if sizes:
        parts.append(f"B = {_range(sizes)}")
    return ", ".join(parts)


def steps_by_size(cells: pd.DataFrame) -> dict[int, int]:
    """Optimizer steps of a run by batch size; sizes without a known budget are left out."""
    return {
        int(size): int(examples // size)
        for size, examples in zip(cells["batch_size"], _examples(cells), strict=True)
        if math.isfinite(examples)
    }


def sizes_with_steps(sizes: Iterable[int], steps: dict[int, int]) -> str:
    """Batch sizes with the steps of each: "B = 64 (4,096 steps), 256 (1,024 steps)"."""
    return "B = " + ", ".join(
        f"{size} ({steps[size]:,} steps)" if size in steps else f"{size}" for size in sizes
    )


def _range(sizes: list[int]) -> str:
    if len(sizes) <= 2:
        return " and ".join(map(str, sizes))
    return f"{sizes[0]} to {sizes[-1]}"


def _examples(cells: pd.DataFrame) -> list[float]:
    known = cells["examples"].astype(float)
    if "budget.examples" in cells:
        known = cells["budget.examples"].astype(float).fillna(known)
    return known.tolist()
