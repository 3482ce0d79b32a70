"""Every figure: `data(inputs)` makes its table, `draw(table)` draws it.

>>> from analysis.figures import draw_all, draw_paper
>>> draw_all("runs", "glyphs", "figures")
>>> draw_paper("figures")

A figure is a module with two functions and one line in `OWN` below:

- `data(inputs: Inputs) -> DataFrame`, long, one row per mark; empty when no cell belongs to the
  figure. `attrs` has "missing" (list of str), and may have "title", "notes", "metric",
  "provenance" and, of a table without rows, "why". Rows of the paper's own numbers have "paper" in
  a column `source`.
- `draw(table) -> Figure`, from the columns alone: a table read back from its CSV draws too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from analysis.errors import AnalysisError
from analysis.figures.beyond import BEYOND
from analysis.figures.extra import batch_size, from_scratch
from analysis.figures.inputs import Inputs, of_study
from analysis.figures.paper import fig_1, fig_2, fig_3, fig_4, fig_5, fig_6, fig_7, fig_8
from analysis.figures.plot.figure_io import Drawn, draw_each
from analysis.figures.tables import (
    table_1,
    table_2,
    table_3,
    table_4,
    table_5,
    table_6,
    table_7,
    table_8,
    table_9,
)

__all__ = ["FIGURES", "PAPER", "TABLES", "Drawn", "Inputs", "draw_all", "draw_paper", "of_study"]

# The paper's figures.
PAPER: Mapping[str, Any] = {
    "fig_1": fig_1,
    "fig_2": fig_2,
    "fig_3": fig_3,
    "fig_4": fig_4,
    "fig_5": fig_5,
    "fig_6": fig_6,
    "fig_7": fig_7,
    "fig_8": fig_8,
}
# Our own: parts of the paper's in detail, and what goes beyond it.
OWN: Mapping[str, Any] = {
    "batch_size": batch_size,
    "from_scratch": from_scratch,
}
FIGURES: Mapping[str, Any] = {**OWN, **BEYOND, **PAPER}
# The paper's tables: modules with `table(inputs) -> tables.Table`.
TABLES: Mapping[str, Any] = {
    f"table_{number}": module
    for number, module in enumerate(
        (table_1, table_2, table_3, table_4, table_5, table_6, table_7, table_8, table_9), start=1
    )
}


def draw_all(
    root: str | Path,
    study: str,
    out: str | Path,
    *,
    metric: str | None = None,
    planned: Iterable[Mapping[str, Any]] | None = None,
    records: str | None = None,
    only: Collection[str] = (),
) -> list[Drawn]:
    """Draws every figure and table that the study has cells for, with the CSV behind each.

    The same records give the same bytes. Files are named `<study>-<figure>`.

    Args:
      metric: the column of quality; None is each figure's own choice.
      planned: the grid's cells, so that those without a record are missed; see `frame.cells`.
      records: the folder of the study's records, if it shares one; see `frame.cells`.
      only: names of figures and tables; none names them all.

    Raises:
      AnalysisError: no such root, study or figure, or `out` cannot be written.
    """
    figures, written = _named(FIGURES, only), _named(TABLES, only)
    inputs = of_study(root, study, metric=metric, planned=planned, records=records)
    return draw_each(figures, written, inputs, Path(out), prefix=f"{study}-")


def draw_paper(out: str | Path, *, only: Collection[str] = ()) -> list[Drawn]:
    """Draws the paper's figures and tables from its own numbers, without any record.

    Raises:
      AnalysisError: `out` cannot be written, there is no such figure, or the paper's numbers are
        not there.
    """
    return draw_each(_named(PAPER, only), _named(TABLES, only), Inputs(), Path(out))


def _named(modules: Mapping[str, Any], only: Collection[str]) -> dict[str, Any]:
    """Those of the modules that are among `only`, or all."""
    if unknown := set(only) - {*FIGURES, *TABLES}:
        raise AnalysisError(
            f"no figure {', '.join(sorted(unknown))}; there are {', '.join([*FIGURES, *TABLES])}"
        )
    return {name: module for name, module in modules.items() if name in only or not only}
