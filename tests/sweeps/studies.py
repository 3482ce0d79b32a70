"""Studies of cells that are only placed and claimed."""

from __future__ import annotations

from typing import Any

from study.config import Budget, Cell, Execution
from sweeps.study import Study


def study_on(*slices: str | None, **execution: Any) -> Study:
    """A cell for each slice, or for this machine, the later the longer."""
    cells = tuple(Cell(batch_size=16, budget=Budget(steps=10 + i)) for i in range(len(slices)))
    by_id = {cell.id: name for cell, name in zip(cells, slices, strict=True)}
    return Study(
        name="s",
        question="?",
        cells=cells,
        execution=lambda cell: Execution(slice=by_id[cell.id], **execution),
    )
