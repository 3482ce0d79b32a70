"""Every figure and table of a study, and those of the paper from its own numbers.

>>> from analysis import figures
>>> inputs = figures.read_inputs("runs", "glyphs")
>>> fig = figures.fig_2(inputs)           # a matplotlib Figure; a notebook shows it
>>> fig.caption                           # sentences; `study figures` writes them beside the image
>>> table = figures.fig_2.data(inputs)    # the numbers behind it
>>> figures.table_8(inputs)               # a table of the paper, as a DataFrame
>>> figures.draw_all("runs", "glyphs", "figures")
>>> figures.draw_paper("figures")

A new figure is a module with two functions, a `Plot` of them, and its name in `EXTRA_FIGURES`:

- `data(inputs: Inputs) -> DataFrame`: the table of `plot.points`, one row per mark; empty when no
  cell belongs to the figure. `attrs` has "missing" (list of str), and may have "title", "notes",
  "metric", "provenance" and, of a table without rows, "why".
- `draw(table) -> StudyFigure`, from the columns alone: a table read back from its CSV draws too.
  `layout.make_figure` arranges its panels for the page, see `plot.style.PAGES`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from analysis.errors import AnalysisError
from analysis.figures.base import Inputs, Output, Plot, read_inputs
from analysis.figures.extra.batch_size import batch_size, from_scratch
from analysis.figures.extra.batch_warmup import batch_warmup
from analysis.figures.extra.compute import compute
from analysis.figures.extra.data_change import data_change
from analysis.figures.extra.held_out import held_out
from analysis.figures.extra.initial_values import initial_values
from analysis.figures.extra.language_mix import language_mix
from analysis.figures.extra.languages import languages
from analysis.figures.extra.local_critical_batch import local_critical_batch
from analysis.figures.extra.loss_gap import loss_gap
from analysis.figures.extra.pairs_map import pairs_map
from analysis.figures.extra.quality_by_budget import quality_by_budget
from analysis.figures.extra.queues import queues
from analysis.figures.extra.rate_by_batch import rate_by_batch
from analysis.figures.extra.same_captions import same_captions
from analysis.figures.extra.saturation import saturation
from analysis.figures.extra.scaling_rules import scaling_rules
from analysis.figures.extra.surface import surface
from analysis.figures.extra.temperature_bias import temperature_bias
from analysis.figures.extra.text_embedding import text_embedding
from analysis.figures.extra.to_target import to_target
from analysis.figures.extra.trajectories import trajectories
from analysis.figures.extra.verdicts import verdicts
from analysis.figures.figure_io import OutputFiles, draw_each
from analysis.figures.paper.fig_1 import fig_1
from analysis.figures.paper.fig_2 import fig_2
from analysis.figures.paper.fig_3 import fig_3
from analysis.figures.paper.fig_4 import fig_4
from analysis.figures.paper.fig_5 import fig_5
from analysis.figures.paper.fig_6 import fig_6
from analysis.figures.paper.fig_7 import fig_7
from analysis.figures.paper.fig_8 import fig_8
from analysis.figures.plot.style import DEFAULT_WIDTH
from analysis.figures.tables.table import PaperTable
from analysis.figures.tables.table_1 import table_1
from analysis.figures.tables.table_3 import table_3
from analysis.figures.tables.table_4 import table_4
from analysis.figures.tables.table_6 import table_6
from analysis.figures.tables.table_7 import table_7
from analysis.figures.tables.tables_2_and_9 import table_2, table_9
from analysis.figures.tables.tables_5_and_8 import table_5, table_8

__all__ = [
    "EXTRA_FIGURES", "FIGURES", "FITS_OF_TABLES", "PAPER_FIGURES", "TABLES", "Inputs",
    "OutputFiles", "PaperTable", "Plot", "batch_size", "batch_warmup", "compute", "data_change",
    "draw_all", "draw_inputs", "draw_paper", "fig_1", "fig_2", "fig_3", "fig_4", "fig_5", "fig_6",
    "fig_7", "fig_8", "from_scratch", "held_out", "initial_values", "language_mix", "languages",
    "local_critical_batch", "loss_gap", "pairs_map", "quality_by_budget", "queues", "rate_by_batch",
    "read_inputs", "same_captions", "saturation", "scaling_rules", "surface", "table_1", "table_2",
    "table_3", "table_4", "table_5", "table_6", "table_7", "table_8", "table_9", "temperature_bias",
    "text_embedding", "to_target", "trajectories", "verdicts",
]  # fmt: skip

PAPER_FIGURES: Mapping[str, Plot] = {
    plot.name: plot for plot in (fig_1, fig_2, fig_3, fig_4, fig_5, fig_6, fig_7, fig_8)
}
# Those that the paper does not have: its figures in detail, fits and maps.
EXTRA_FIGURES: Mapping[str, Plot] = {
    plot.name: plot
    for plot in (
        *(verdicts, batch_size, from_scratch, quality_by_budget, surface, held_out),
        *(saturation, loss_gap, to_target, compute, pairs_map, queues, same_captions),
        *(rate_by_batch, scaling_rules, initial_values, temperature_bias, trajectories),
        *(data_change, languages, language_mix, text_embedding, local_critical_batch, batch_warmup),
    )
}
# Those of them that show the paper's own tables, too.
FITS_OF_TABLES: Mapping[str, Plot] = {
    plot.name: plot for plot in (quality_by_budget, surface, held_out, to_target, compute)
}
FIGURES: Mapping[str, Plot] = {**PAPER_FIGURES, **EXTRA_FIGURES}
TABLES: Mapping[str, PaperTable] = {
    table.name: table
    for table in (
        *(table_1, table_2, table_3, table_4, table_5, table_6, table_7, table_8, table_9),
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
    width: str = DEFAULT_WIDTH,
    bare: bool = False,
) -> list[OutputFiles]:
    """Draws every figure and table that the study has cells for, with the CSV behind each.

    The same records give the same bytes. Files are named `<study>-<figure>`.

    Args:
      metric: the column of quality; None lets each figure choose.
      planned, records: the grid's cells and the folder that they share; see `frame.cells`.
      only: names of figures and tables; all by default.
      width, bare: of the pictures, see `Plot.draw`.

    Raises:
      AnalysisError: no such root, study or figure, or `out` cannot be written.
    """
    inputs = read_inputs(root, study, metric=metric, planned=planned, records=records)
    return draw_inputs(inputs, study, out, only=only, width=width, bare=bare)


def draw_inputs(
    inputs: Inputs,
    study: str,
    out: str | Path,
    *,
    only: Collection[str] = (),
    width: str = DEFAULT_WIDTH,
    bare: bool = False,
) -> list[OutputFiles]:
    """As `draw_all`, from what `read_inputs` returned for the study."""
    outputs = _pick(FIGURES, only) + _pick(TABLES, only)
    return draw_each(outputs, inputs, Path(out), prefix=f"{study}-", width=width, bare=bare)


def draw_paper(
    out: str | Path,
    *,
    only: Collection[str] = (),
    width: str = DEFAULT_WIDTH,
    bare: bool = False,
) -> list[OutputFiles]:
    """Draws the paper's figures and tables, and fits to them, from its own numbers alone.

    Raises:
      AnalysisError: no such figure, or `out` cannot be written.
    """
    outputs = _pick({**PAPER_FIGURES, **FITS_OF_TABLES}, only) + _pick(TABLES, only)
    return draw_each(outputs, Inputs(), Path(out), width=width, bare=bare)


_Output = TypeVar("_Output", bound=Output)


def _pick(register: Mapping[str, _Output], only: Collection[str]) -> list[_Output]:
    """Those named in `only`, or all."""
    if unknown := set(only) - {*FIGURES, *TABLES}:
        raise AnalysisError(
            f"no figure {', '.join(sorted(unknown))}; choose from {', '.join([*FIGURES, *TABLES])}"
        )
    return [output for name, output in register.items() if name in only or not only]
