"""What every figure is made from (`Inputs`) and what it is (`Plot`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import paper
from analysis.errors import AnalysisError
from analysis.records import frame
from analysis.select.fields import TOP1

Chosen = TypeVar("Chosen")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """One row per cell, and on demand one row per logged line (see `frame.cells`, `frame.rows`).

    cells: without rows where there are no records, so that only the paper's numbers are drawn.
    read_rows: called when a figure of curves asks for them.
    metric: the column of quality; None is each figure's own choice.
    read_items: which evaluated examples a cell got right, by its id and a metric; see
      `frame.items`.
    """

    cells: pd.DataFrame = field(default_factory=pd.DataFrame)
    read_rows: Callable[[], pd.DataFrame] = pd.DataFrame
    metric: str | None = None
    read_items: Callable[[str, str], np.ndarray | None] = lambda cell, metric: None
    _chosen: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def quality(self) -> str:
        """The metric asked for, or the built-in studies' own."""
        return self.metric or TOP1

    def quality_of(self, cells: pd.DataFrame, benchmark: str = "ImageNet") -> str:
        """The metric asked for; else zero-shot on the paper's benchmark where a cell ended with
        it; else the built-in studies' own."""
        known = (key for key in cells if cells[key].notna().any())
        return self.metric or paper.find_metric(known, benchmark) or TOP1

    def chosen(self, choose: Callable[..., Chosen], **how: Hashable) -> Chosen:
        """What a function of `panels` chooses of these cells, chosen once for all figures.

        >>> inputs.chosen(panels.batch_sizes, image="cached")
        """
        key = (choose, *sorted(how.items()))
        if key not in self._chosen:
            self._chosen[key] = choose(self.cells, **how)
        found: Chosen = self._chosen[key]
        return found

    @functools.cached_property
    def rows(self) -> pd.DataFrame:
        return self.read_rows()


def read_inputs(
    root: str | Path,
    study: str,
    *,
    metric: str | None = None,
    planned: Iterable[Mapping[str, Any]] | None = None,
    records: str | None = None,
) -> Inputs:
    """The records of a study; the logged lines are read when first asked for.

    Args:
      planned, records: the grid's cells, and the folder that they share; see `frame.cells`.

    Raises:
      AnalysisError: no such root or study.
    """
    cells = frame.cells(root, study, planned=planned, records=records).copy()  # in one piece
    folder, own = records or study, set(cells["id"])

    def read_rows() -> pd.DataFrame:
        rows = frame.rows(root, folder)
        return rows[rows["id"].isin(own)].reset_index(drop=True)

    @functools.cache
    def items(cell: str) -> dict[str, np.ndarray]:
        try:
            return frame.items(root, folder, cell)
        except AnalysisError:  # torn by a kill: an interval over seeds alone is drawn
            return {}

    return Inputs(
        cells=cells,
        read_rows=read_rows,
        metric=metric,
        read_items=lambda cell, key: items(cell).get(key),
    )


@dataclass(frozen=True)
class Plot:
    """One figure: `data` gives its numbers, `draw` draws them, and a call does both."""

    name: str
    data: Callable[[Inputs], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]

    def __call__(self, inputs: Inputs) -> Figure:
        """The figure on these cells, or without cells on the paper's numbers.

        Raises:
          AnalysisError: no cell belongs to it.
        """
        table, _, skipped = self.table(inputs)
        if skipped:
            raise AnalysisError(f"{self.name} is not drawn: {skipped}")
        return self.draw(table)

    def table(self, inputs: Inputs) -> tuple[pd.DataFrame, list[str], str | None]:
        """Its numbers, the cells that it lacks, and the reason where it cannot be drawn."""
        table = self.data(inputs)
        missing = list(table.attrs.get("missing", ()))
        ours = table[table["source"] != "paper"] if "source" in table else table
        if not len(table) or (len(inputs.cells) and not len(ours)):
            return table, missing, reason_to_skip(table, missing, inputs)
        return table, missing, None


def reason_to_skip(table: pd.DataFrame, missing: list[str], inputs: Inputs) -> str:
    if not len(inputs.cells):
        return "the paper prints no numbers for it"
    if why := table.attrs.get("why"):
        return str(why)
    if not missing:
        return "no cell of the study belongs to it"
    metric = table.attrs.get("metric", inputs.quality)
    others = _qualities(inputs.cells)
    if metric in others:  # other cells of the study did
        return "none of its cells has ended"
    reason = f"none of its cells has ended with {metric}"
    if len(others) > 6:
        others = [*others[:6], f"and {len(others) - 6} more"]
    return f"{reason}; metrics that they have: {', '.join(others)}" if others else reason


def _qualities(cells: pd.DataFrame) -> list[str]:
    """The metrics of quality that some cell ended with."""
    return [
        key
        for key in cells
        if key.startswith("eval/") and key.endswith(("/top1", "_r1")) and cells[key].notna().any()
    ]
