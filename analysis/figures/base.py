"""What every figure is made from (`Inputs`) and what it is (`Plot`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from analysis.claims import Verdict, judge
from analysis.errors import AnalysisError
from analysis.figures.plot import style
from analysis.figures.plot.layout import StudyFigure
from analysis.records import frame
from analysis.records.scores import ItemReader
from analysis.select.benchmarks import find_metric
from analysis.select.fields import check_metric, usual_quality

Selection = TypeVar("Selection")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A study's cells, and on demand its logged lines (see `frame.cells`, `frame.rows`).

    cells: one row per cell. Without rows, only the paper's numbers are drawn.
    read_rows: called when a figure needs curves.
    metric: the column of quality; None lets each figure choose.
    read_items: which evaluated examples a cell got right, by its id and a metric; see
      `frame.items`.
    """

    cells: pd.DataFrame = field(default_factory=pd.DataFrame)
    read_rows: Callable[[], pd.DataFrame] = pd.DataFrame
    metric: str | None = None
    read_items: ItemReader = lambda cell, metric: None
    _cache: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def quality(self) -> str:
        """The column of quality: `metric`, else see `usual_quality`."""
        return self.metric or usual_quality(self.cells)

    def quality_of(self, cells: pd.DataFrame, benchmark: str = "ImageNet") -> str:
        """The column of quality of these cells: `metric`; else zero-shot on the paper's benchmark
        where a cell has it; else see `usual_quality`."""
        known = (key for key in cells if cells[key].notna().any())
        return self.metric or find_metric(known, benchmark) or usual_quality(cells)

    def select(self, choose: Callable[..., Selection], **options: Hashable) -> Selection:
        """`choose(cells, **options)`, computed once for all figures.

        >>> inputs.select(panels.batch_sizes, image="cached")
        """
        key = (choose, *sorted(options.items()))
        if key not in self._cache:
            self._cache[key] = choose(self.cells, **options)
        selection: Selection = self._cache[key]
        return selection

    @functools.cached_property
    def rows(self) -> pd.DataFrame:
        return self.read_rows()

    @functools.cached_property
    def verdicts(self) -> list[Verdict]:
        """The verdicts on all claims."""
        return judge(
            self.cells,
            metric=self.quality,
            read_rows=lambda: self.rows,
            read_items=self.read_items,
        )


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
      AnalysisError: no such root or study, or cells are finished, but none with this metric.
    """
    cells = frame.cells(root, study, planned=planned, records=records).copy()  # in one piece
    done = cells[cells["status"] == "done"] if len(cells) else cells
    if metric is not None and len(done):
        check_metric(done, metric, study)
    folder, own = records or study, set(cells["id"])

    def read_rows() -> pd.DataFrame:
        rows = frame.rows(root, folder)
        return rows[rows["id"].isin(own)].reset_index(drop=True)

    return Inputs(
        cells=cells,
        read_rows=read_rows,
        metric=metric,
        read_items=frame.item_reader(root, folder),
    )


def as_inputs(study: Inputs | str, root: str = "runs") -> Inputs:
    """The records of a study, read where only its name is given."""
    return read_inputs(root, study) if isinstance(study, str) else study


@dataclass(frozen=True)
class Output:
    """A figure or a table of the paper; `data` gives its numbers, one row for each."""

    name: str
    data: Callable[[Inputs], pd.DataFrame]

    def numbers(self, inputs: Inputs) -> tuple[pd.DataFrame, str | None]:
        """Its numbers, and the reason where it is not to be shown.

        With cells, it is shown only if one of them belongs to it, whatever the paper prints.
        """
        table = self.data(inputs)
        ours = table[table["source"] != "paper"]
        if not len(table) or (len(inputs.cells) and not len(ours)):
            return table, _reason_to_skip(table, inputs)
        return table, None


@dataclass(frozen=True)
class Plot(Output):
    """A figure: a call gives the matplotlib Figure, with its caption as `caption`.

    draw_panels: draws the table on the current page, see `style.page`.
    """

    draw_panels: Callable[[pd.DataFrame], StudyFigure]

    def draw(
        self, table: pd.DataFrame, *, width: str = style.DEFAULT_WIDTH, bare: bool = False
    ) -> StudyFigure:
        """The figure of these numbers, as `data` gives them or read back from their CSV.

        Args:
          width: "column", "text" (across the page) or "slide" (16:9), see `style.PAGES`.
          bare: leave the title out of the picture.
        """
        with style.page(width, bare=bare):
            return self.draw_panels(table)

    def __call__(
        self,
        study: Inputs | str,
        root: str = "runs",
        *,
        width: str = style.DEFAULT_WIDTH,
        bare: bool = False,
    ) -> StudyFigure:
        """The figure of a study, or of `Inputs()` on the paper's numbers; see `draw`.

        Args:
          study: its name, or what `read_inputs` returned.
          root: folder or bucket of the records, or a snapshot.

        Raises:
          AnalysisError: no such root or study, or no cell belongs to the figure.
        """
        inputs = as_inputs(study, root)
        table, skipped = self.numbers(inputs)
        if skipped:
            raise AnalysisError(f"{self.name} is not drawn: {skipped}")
        return self.draw(table, width=width, bare=bare)


def _reason_to_skip(table: pd.DataFrame, inputs: Inputs) -> str:
    cells = inputs.cells
    if not len(cells):
        return "the paper prints no numbers for it"
    if why := table.attrs.get("why"):
        return str(why)
    if not table.attrs.get("missing"):
        return "no cell of the study belongs to it"
    metric = table.attrs.get("metric", inputs.quality)
    ended_with = [
        key
        for key in cells
        if key.startswith("eval/") and key.endswith(("/top1", "_r1")) and cells[key].notna().any()
    ]
    if metric in ended_with:  # other cells of the study did
        return "none of its cells has ended"
    reason = f"none of its cells has ended with {metric}"
    if len(ended_with) > 6:
        ended_with = [*ended_with[:6], f"and {len(ended_with) - 6} more"]
    if ended_with:
        return f"{reason}; metrics that they have: {', '.join(ended_with)}"
    return reason
