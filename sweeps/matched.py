"""Cells that a study says are equal in pairs or examples: said once, checked when it is built.

    Study(..., matched=(Matched(by="pairs", cells=(whole, hard)),))

Runs end with a whole step, so two budgets are equal when they differ by less than one step of
either. `budget` solves for the other cell: the same pairs, or the same examples, at another batch
size or choice of negatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from study.config.budget import Budget
from study.config.cell import Cell

By = Literal["pairs", "examples"]


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Cells that see equally many pairs, or examples."""

    by: By
    cells: tuple[Cell, ...]

    def trouble(self) -> str | None:
        """The first two cells that are not equal, in one line; None where all are."""
        first, *others = self.cells
        for other in others:
            a, b = total(first, self.by), total(other, self.by)
            if abs(a - b) >= max(per_step(first, self.by), per_step(other, self.by)):
                return (
                    f"{first.id} and {other.id} are said to match in {self.by}, but have {a:,} "
                    f"and {b:,} ({first.steps:,} and {other.steps:,} steps); give the second "
                    f"budget=Budget({self.by}={a})"
                )
        return None


def total(cell: Cell, by: By) -> int:
    """Pairs or examples of the whole run."""
    return cell.steps * per_step(cell, by)


def per_step(cell: Cell, by: By) -> int:
    return cell.pairs_per_step if by == "pairs" else cell.batch_size


def budget(like: Cell, by: By) -> Budget:
    """What another cell needs to see as many pairs, or examples, as `like`."""
    return Budget(pairs=total(like, by)) if by == "pairs" else Budget(examples=total(like, by))


def check(matched: Sequence[Matched], cells: Sequence[Cell]) -> str | None:
    """What is wrong with the labels of a study of these cells, in one line, or None."""
    ids = {cell.id for cell in cells}
    for label in matched:
        if len(label.cells) < 2:
            return f"matched in {label.by}: give two cells or more"
        if absent := [cell.id for cell in label.cells if cell.id not in ids]:
            return f"matched in {label.by}: {absent[0]} is no cell of the study"
        if said := label.trouble():
            return said
    return None
