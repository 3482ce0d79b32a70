"""What the page shows: figures as images with their numbers, and tables of cells."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot.layout import StudyFigure
from analysis.records.frame import NOT_STARTED
from analysis.records.record import INTERRUPTIONS
from analysis.report.inline_svg import InlineSvg, inline_svg
from study.records.interruptions import Interruption

WIDTHS = ("text", "column")  # of a figure, for wide and for narrow screens
MOST_ROWS = 80  # of the table under a figure
NOT_RECORDED = "not recorded"
ENDED = ("done", "diverged")


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Rows of text; `numbers` are the columns of numbers, `note` names what is left out."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure on the page.

    Attributes:
      name: as `study figures` names its files.
      svgs: the figure by the width that it is drawn for, see `style.PAGES`.
      table: the means (or else the points) that it shows.
      missing: cells that it lacks.
    """

    name: str
    title: str
    caption: tuple[str, ...]
    svgs: Mapping[str, InlineSvg]
    table: TextTable
    missing: tuple[str, ...]


def make_picture(plot: Plot, numbers: pd.DataFrame, save: Callable[[StudyFigure], None]) -> Picture:
    """Draws a figure from its numbers, for a wide screen and for a narrow one.

    Args:
      save: takes the one for a wide screen, with its title, before it becomes part of a page.
    """
    figures = {width: plot.draw(numbers, width=width) for width in WIDTHS}
    save(figures[WIDTHS[0]])
    svgs = {
        width: inline_svg(fig, f"{plot.name}.{width}", alt_text(fig))
        for width, fig in figures.items()
    }
    fig = figures[WIDTHS[0]]
    means = numbers[numbers["kind"] == "mean"]
    table = (means if len(means) else numbers).drop(columns=["kind"])
    table = table.dropna(axis="columns", how="all")
    note = ""
    if len(table) > MOST_ROWS:
        note = f"The first {MOST_ROWS} of {len(table):,} rows; the figure's CSV has them all."
    return Picture(
        name=plot.name,
        title=fig.title,
        caption=(*fig.caption, fig.provenance),
        svgs=svgs,
        table=_text_table(table.iloc[:MOST_ROWS], note),
        missing=tuple(numbers.attrs.get("missing", ())),
    )


def alt_text(fig: StudyFigure) -> str:
    """The words of a figure in reading order: title, series, what each panel plots."""
    labels = [text.get_text() for legend in fig.legends for text in legend.get_texts()]
    series = [f"{', '.join(labels)}."] if labels else []
    panels = [words for axes in fig.axes if (words := _describe_axes(axes))]
    return " ".join((f"{fig.title}.", *series, *panels))


def _describe_axes(axes: Axes) -> str:
    x, y = _one_line(axes.get_xlabel()), _one_line(axes.get_ylabel())
    legend = axes.get_legend()
    series = [_one_line(text.get_text()) for text in legend.get_texts()] if legend else []
    words = f"{y} against {x}" if x and y else x or y or _one_line(axes.get_title())
    if not words:
        return ""
    return f"{words}: {', '.join(series)}." if series else f"{words}."


def _one_line(text: str) -> str:
    return " ".join(text.split())


def describe_cells(inputs: Inputs) -> TextTable:
    """Every cell: its state, how long it took, and its quality."""
    cells = inputs.cells
    table = _progress(cells)
    table["seconds"] = cells["seconds"].astype(float).round(1)
    if inputs.quality in cells:
        table[inputs.quality] = cells[inputs.quality]
    return _text_table(table)


def unfinished_cells(cells: pd.DataFrame) -> TextTable:
    """The cells that began and are not done, those that need a person first."""
    order = {"failed": 0, "diverged": 1, "running-or-interrupted": 2}
    left = cells[~cells["status"].isin(("done", NOT_STARTED))]
    left = left.iloc[left["status"].map(lambda s: order.get(s, 9)).argsort(kind="stable")]
    table = _progress(left).assign(error=left["error"])
    return _text_table(table.dropna(axis="columns", how="all"))


def interrupted_cells(cells: pd.DataFrame) -> tuple[str, TextTable]:
    """A sentence on the interruptions of all cells, and a row for each interrupted cell."""
    cells = cells[cells["attempts"] > 1]
    rows, seconds = [], []
    texts = cells[INTERRUPTIONS] if INTERRUPTIONS in cells else [None] * len(cells)
    for cell, attempts, text in zip(cells["id"], cells["attempts"], texts, strict=True):
        known = [] if pd.isna(text) else [Interruption(*values) for values in json.loads(text)]
        own = [each.seconds for each in known if each.seconds is not None]
        seconds += own
        rows.append(
            {
                "cell": cell,
                "attempts": attempts,
                "median seconds": round(statistics.median(own), 1) if own else NOT_RECORDED,
                "most seconds": round(max(own), 1) if own else NOT_RECORDED,
                "steps repeated": (
                    NOT_RECORDED if pd.isna(text) else sum(each.steps for each in known)
                ),
            }
        )
    times = NOT_RECORDED
    if seconds:
        times = f"{statistics.median(seconds):.1f} s in the median, {max(seconds):.1f} s at most"
    cells_text = "1 cell was" if len(rows) == 1 else f"{len(rows):,} cells were"
    sentence = f"{cells_text} interrupted. From an interruption to training again: {times}."
    table = pd.DataFrame(rows)
    numbers = frozenset(range(1, len(table.columns)))
    return sentence, dataclasses.replace(_text_table(table), numbers=numbers)


def _progress(cells: pd.DataFrame) -> pd.DataFrame:
    seen = [
        f"{_format(seen)} of {_format(target)}" if seen or state in ENDED else ""
        for seen, target, state in zip(
            cells["examples_seen"], cells["examples"], cells["status"], strict=True
        )
    ]
    table = pd.DataFrame({"cell": cells["id"], "state": cells["status"], "seen": seen})
    table["attempts"] = cells["attempts"]
    return table


def _text_table(frame: pd.DataFrame, note: str = "") -> TextTable:
    numbers = frozenset(
        i
        for i, name in enumerate(frame)
        if name == "seen" or pd.api.types.is_numeric_dtype(frame[name])
    )
    rows = [tuple(map(_format, row)) for row in frame.itertuples(index=False, name=None)]
    return TextTable(head=tuple(frame), rows=tuple(rows), numbers=numbers, note=note)


def _format(value: Any) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value) if isinstance(value, str) else f"{value:,}"
