"""A table of the paper with ours beside it: as text, as CSV and as a fragment of HTML.

>>> table = tables.build(title="Table 8", head=("batch",), entries=[...])
>>> print(tables.text(table))
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from analysis.stats.intervals import Interval

Labels = tuple[str, ...]
Source = Literal["paper", "ours"]
SOURCES: tuple[Source, ...] = ("paper", "ours")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One number: where it stands, whose it is, and what is known about it.

    row, column: the labels of its row and the name of its column.
    value: NaN where `text` is all that is printed ("-10", "1e-4").
    low, high: the 95 % interval, or the paper's own spread; NaN where there is none.
    n: cells that it is the mean of; None for the paper's.
    """

    row: Labels
    column: str
    source: Source
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int | None = None
    digits: int | None = 1

    @property
    def shown(self) -> str:
        number = f"{self.value:g}" if self.digits is None else f"{self.value:.{self.digits}f}"
        if math.isnan(self.low):
            return number
        return f"{number} ± {(self.high - self.low) / 2:.{self.digits or 1}f}"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows and columns in the order of the paper; a place may hold two numbers or none.

    head: the names of the label columns. notes: one sentence each, without a full stop.
    """

    title: str
    head: Labels
    rows: tuple[Labels, ...]
    columns: tuple[str, ...]
    entries: Mapping[tuple[Labels, str, Source], Entry]
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    provenance: str = ""
    sources: Mapping[str, tuple[Source, ...]] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        return any(source == "ours" for _, _, source in self.entries)


def build(
    *,
    title: str,
    head: Labels,
    entries: Iterable[Entry],
    rows: Sequence[Labels] | Callable[[Labels], Any] | None = None,
    columns: Sequence[str] | Callable[[str], Any] | None = None,
    notes: Iterable[str] = (),
    missing: Iterable[str] = (),
    provenance: str = "",
) -> Table:
    """A table of these entries.

    Args:
      rows, columns: in which order; or a key to sort by; None is the order of the entries.
    """
    every = list(entries)
    found_rows = list(dict.fromkeys(entry.row for entry in every))
    found_columns = list(dict.fromkeys(entry.column for entry in every))
    ordered_columns = _ordered(found_columns, columns)
    return Table(
        title=title,
        head=head,
        rows=tuple(_ordered(found_rows, rows)),
        columns=tuple(ordered_columns),
        entries={(entry.row, entry.column, entry.source): entry for entry in every},
        notes=tuple(notes),
        missing=tuple(missing),
        provenance=provenance,
        sources={
            column: tuple(
                source
                for source in SOURCES
                if any(e.column == column and e.source == source for e in every)
            )
            for column in ordered_columns
        },
    )


def ours(row: Labels, column: str, interval: Interval, n: int, **more: Any) -> Entry:
    value, low, high = interval
    return Entry(
        row=row, column=column, source="ours", value=value, low=low, high=high, n=n, **more
    )


def text(table: Table, *, width: int = 100) -> str:
    """For a terminal: columns in line, notes below."""
    top, second, body = _grid(table)
    lines = [top, second, *body] if any(second) else [top, *body]
    labels = len(table.head)
    widths = [max(len(line[i]) for line in lines) for i in range(len(top))]
    shown = [
        "  ".join(
            item.ljust(size) if i < labels else item.rjust(size)
            for i, (item, size) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    head = len(lines) - len(body)
    rule = "-" * max(len(line) for line in shown)
    said = [f"{note[0].upper()}{note[1:]}." for note in caption(table)]
    notes = [part for note in said for part in textwrap.wrap(note, width)]
    if table.provenance:
        notes.append(f"({table.provenance})")
    return "\n".join([table.title, "", *shown[:head], rule, *shown[head:], "", *notes]).rstrip()


def caption(table: Table) -> list[str]:
    """The notes, what ours are, and what is missing; without full stops."""
    said = list(table.notes)
    if table.ours:
        known = any(e.n is not None and e.n > 1 for e in table.entries.values())
        said.append(
            "Ours: mean over seeds" + (" ± half of its 95 % interval" if known else ", one each")
        )
    if table.missing:
        most = 6
        rest = f"; and {len(table.missing) - most} more" if len(table.missing) > most else ""
        said.append(f"Missing: {'; '.join(table.missing[:most])}{rest}")
    return said


def frame(table: Table) -> pd.DataFrame:
    """One row per number: the labels, column, source, value, low, high, n."""
    rows = []
    for row in table.rows:
        for column in table.columns:
            for source in SOURCES:
                entry = table.entries.get((row, column, source))
                if entry is not None:
                    rows.append(
                        dict(zip(table.head, row, strict=True))
                        | {"column": column, "source": source, "value": entry.value}
                        | {"low": entry.low, "high": entry.high, "n": entry.n}
                    )
    columns = [*table.head, "column", "source", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).astype({"n": "Int64"})


def fragment(table: Table) -> str:
    """`<figure class="table">` with the table and its notes; no style of its own.

    The paper's numbers have the class "paper", ours "ours".
    """

    def cells(line: Sequence[str], kind: str, classes: Sequence[str]) -> str:
        return "".join(
            f'<{kind} class="{name}">{html.escape(item)}</{kind}>'
            for item, name in zip(line, classes, strict=True)
        )

    _, second, body = _grid(table)
    labels = len(table.head)
    classes = ["label"] * labels
    heads = "".join(f'<th class="label">{html.escape(name)}</th>' for name in table.head)
    for column in table.columns:
        sources = table.sources[column]
        span = f' colspan="{len(sources)}"' if len(sources) > 1 else ""
        heads += f'<th scope="colgroup"{span}>{html.escape(column)}</th>'
        classes += list(sources)
    lines = [f"<tr>{heads}</tr>"]
    if any(second):
        lines.append(f"<tr>{cells(second, 'th', classes)}</tr>")
    rows = [f"<tr>{cells(line, 'td', classes)}</tr>" for line in body]
    notes = " ".join(f"{html.escape(note[0].upper() + note[1:])}." for note in caption(table))
    source = f' <small class="provenance">{html.escape(table.provenance)}</small>'
    return "\n".join(
        [
            '<figure class="table">',
            f"<figcaption>{html.escape(table.title)}</figcaption>",
            "<table>",
            "<thead>",
            *lines,
            "</thead>",
            "<tbody>",
            *rows,
            "</tbody>",
            "</table>",
            f"<p>{notes}{source if table.provenance else ''}</p>",
            "</figure>\n",
        ]
    )


def _grid(table: Table) -> tuple[list[str], list[str], list[list[str]]]:
    """Two lines of heads and the body, all with the same number of items."""
    places = [(column, source) for column in table.columns for source in table.sources[column]]
    blank = [""] * len(table.head)
    last = ""
    top = list(table.head)
    for column, _ in places:
        top.append("" if column == last else column)
        last = column
    second = [*blank, *(source if table.ours else "" for _, source in places)]
    body = []
    for row in table.rows:
        found = [table.entries.get((row, column, source)) for column, source in places]
        body.append([*row, *("" if entry is None else entry.shown for entry in found)])
    return top, second, body


def _ordered(found: list[Any], order: Any) -> list[Any]:
    if order is None:
        return found
    if callable(order):
        return sorted(found, key=order)
    return [*(item for item in order if item in found), *(f for f in found if f not in order)]
