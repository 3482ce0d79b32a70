"""What a claim was tested on, in words: budget, batch sizes, steps."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

# At a fixed number of examples a larger batch takes fewer steps, and a cell with fewer than these
# shows little of its batch size: of 500 steps, 5 % of warm-up are 25, and the schedule still has
# time to decay, while a run of 64 steps has barely left its initial values.
FEWEST_STEPS = 500


def scope(cells: pd.DataFrame) -> str:
    """Budget and batch sizes of cells: "262,144 examples, B = 64 to 4096"."""
    parts = []
    budgets = sorted({int(budget) for budget in _budgets(cells) if math.isfinite(budget)})
    if budgets:
        parts.append(f"{' or '.join(f'{budget:,}' for budget in budgets)} examples")
    sizes = sorted(set(cells["batch_size"]))
    if sizes:
        ends = sizes if len(sizes) <= 2 else (sizes[0], sizes[-1])
        parts.append(f"B = {(' and ' if len(sizes) == 2 else ' to ').join(map(str, ends))}")
    return ", ".join(parts)


def steps_by_size(cells: pd.DataFrame) -> dict[int, int]:
    """Optimizer steps of a run by batch size; sizes without a known budget are left out."""
    return {
        int(size): int(budget // size)
        for size, budget in zip(cells["batch_size"], _budgets(cells), strict=True)
        if math.isfinite(budget)
    }


def name_sizes(sizes: Iterable[int], steps: dict[int, int] | None = None) -> str:
    """Batch sizes, with the steps of each where they are known: "B = 64 (4,096 steps), 256"."""
    steps = steps or {}
    return "B = " + ", ".join(
        f"{size} ({steps[size]:,} steps)" if size in steps else f"{size}" for size in sizes
    )


def _budgets(cells: pd.DataFrame) -> list[float]:
    examples = cells["examples"].astype(float)
    if "budget.examples" in cells:
        examples = cells["budget.examples"].astype(float).fillna(examples)
    return examples.tolist()
