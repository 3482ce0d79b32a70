"""What a claim was tested on, in words: budget, batch sizes, steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import pandas as pd

from analysis.select.deciding import examples_of


def scope(cells: pd.DataFrame) -> str:
    """Budget and batch sizes of cells: "262,144 examples, B = 64 to 4096"."""
    parts = []
    budgets = sorted({int(budget) for budget in examples_of(cells) if math.isfinite(budget)})
    if budgets:
        parts.append(f"{' or '.join(f'{budget:,}' for budget in budgets)} examples")
    sizes = sorted(set(cells["batch_size"]))
    if sizes:
        ends = sizes if len(sizes) <= 2 else (sizes[0], sizes[-1])
        parts.append(f"B = {(' and ' if len(sizes) == 2 else ' to ').join(map(str, ends))}")
    return ", ".join(parts)


def name_sizes(sizes: Iterable[int], steps: Mapping[int, int] | None = None) -> str:
    """Batch sizes, with the steps of each where they are known: "B = 64 (4,096 steps), 256"."""
    steps = steps or {}
    return "B = " + ", ".join(
        f"{size} ({steps[size]:,} steps)" if size in steps else f"{size}" for size in sizes
    )
