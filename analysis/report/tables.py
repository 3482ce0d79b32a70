"""Tables for a page: text and flush-right numbers, from frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.figures.base import Inputs
from analysis.figures.tables.table import PaperTable, to_html
from analysis.records.frame import NOT_STARTED

MOST_ROWS = 80  # of the table under a figure
OVER = ("done", "diverged")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text; `numbers` are the columns of numbers, `note` says what is left out."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One of the paper's tables with ours beside its numbers, or why it is `skipped`.

    html: a fragment, escaped.
    """

    name: str
    title: str = ""
    html: str = ""
    skipped: str | None = None


def papers_tables(written: Mapping[str, PaperTable], inputs: Inputs) -> list[Listed]:
    """Every table of this register, shown or not."""
    found = []
    for name, paper_table in written.items():
        table, skipped = paper_table.numbers(inputs)
        if skipped:
            found.append(Listed(name=name, skipped=skipped))
        else:
            found.append(Listed(name=name, title=table.attrs["title"], html=to_html(table, name)))
    return found


def of_frame(frame: pd.DataFrame) -> Table:
    """A figure's table for reading: its means where it has any, without empty columns."""
    means = frame[frame["kind"] == "mean"] if "kind" in frame else frame
    shown = (means if len(means) else frame).drop(columns=["kind"], errors="ignore")
    shown = shown.dropna(axis="columns", how="all")
    note = ""
    if len(shown) > MOST_ROWS:
        note = f"The first {MOST_ROWS} of {len(shown):,} rows; the figure's CSV has them all."
    return _table(shown.iloc[:MOST_ROWS], note)


def of_cells(inputs: Inputs) -> Table:
    """Every cell: what became of it, how long it took, and its quality."""
    cells = inputs.cells
    shown = pd.DataFrame({"cell": cells["id"], "state": cells["status"], "seen": _seen(cells)})
    shown["attempts"] = cells["attempts"]
    shown["seconds"] = cells["seconds"].astype(float).round(1)
    if inputs.quality in cells:
        shown[inputs.quality] = cells[inputs.quality]
    return _table(shown)


def of_unfinished(cells: pd.DataFrame) -> Table:
    """The cells that began and are not done, those that need a person first."""
    order = {"failed": 0, "diverged": 1, "running-or-interrupted": 2}
    left = cells[~cells["status"].isin(("done", NOT_STARTED))]
    left = left.iloc[left["status"].map(lambda s: order.get(s, 9)).argsort(kind="stable")]
    shown = pd.DataFrame({"cell": left["id"], "state": left["status"], "seen": _seen(left)})
    shown["attempts"] = left["attempts"]
    shown["error"] = left["error"]
    return _table(shown.dropna(axis="columns", how="all"))


def _seen(cells: pd.DataFrame) -> list[str]:
    return [
        "" if not seen and state not in OVER else f"{_text(seen)} of {_text(target)}"
        for seen, target, state in zip(
            cells["examples_seen"], cells["examples"], cells["status"], strict=True
        )
    ]


def _table(frame: pd.DataFrame, note: str = "") -> Table:
    numbers = {
        i
        for i, name in enumerate(frame)
        if name == "seen" or pd.api.types.is_numeric_dtype(frame[name])
    }
    rows = [tuple(_text(v) for v in row) for row in frame.itertuples(index=False, name=None)]
    return Table(head=tuple(frame), rows=tuple(rows), numbers=frozenset(numbers), note=note)


def _text(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value) if isinstance(value, str) else f"{value:,}"
