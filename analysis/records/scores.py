"""Metrics that know which cells they were measured on, and so which examples were right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# Which evaluated examples a cell got right: bool `N` by cell id and metric; None if not recorded.
ItemReader = Callable[[str, str], "np.ndarray | None"]


class Score(float):
    """The value of a metric of one cell, or a weighted sum of several cells' values.

    Attributes:
      metric: the name of the column.
      cells: factor and id of each cell.
    """

    metric: str
    cells: tuple[tuple[float, str], ...]

    def __new__(cls, value: float, metric: str, cells: Sequence[tuple[float, str]]) -> Score:
        score = super().__new__(cls, value)
        score.metric, score.cells = metric, tuple(cells)
        return score

    def minus(self, other: Score) -> Score:
        """The difference to another cell's value of the same metric."""
        negative = tuple((-factor, cell) for factor, cell in other.cells)
        return Score(float(self) - float(other), self.metric, self.cells + negative)

    @classmethod
    def mean(cls, scores: Iterable[Score]) -> Score:
        """The mean of several values of one metric."""
        scores = list(scores)
        cells = [(factor / len(scores), cell) for one in scores for factor, cell in one.cells]
        return cls(sum(scores) / len(scores), scores[0].metric, cells)


def read_scores(cells: pd.DataFrame, metric: str) -> list[Score]:
    """The column of a metric, or of `Score`s, of cells with or without an id."""
    if any(isinstance(value, Score) for value in cells[metric]):
        return cells[metric].tolist()
    ids = cells["id"] if "id" in cells else [""] * len(cells)
    values = cells[metric].astype(float)
    return [Score(value, metric, [(1.0, cell)]) for value, cell in zip(values, ids, strict=True)]
