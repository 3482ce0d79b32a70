"""The paper's tables with our numbers in them: as a wide DataFrame, text, HTML and CSV.

The numbers of a table are a long DataFrame: the labels of its row, column, source ("paper",
"ours"), value, low and high (95 % interval), n (cells of a mean). `attrs` has what stands around
them: title, notes, missing, provenance.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from analysis.figures.base import Inputs, Output, as_inputs
from analysis.figures.plot.points import sources
from analysis.records.scores import ItemReader
from analysis.select.panels import Panel
from analysis.stats.intervals import by_group, group_means

Row = dict[str, Any]
Labels = tuple[str, ...]
MOST_MISSING = 6  # missing cells that the notes name
WIDTH = 100  # characters of the notes


@dataclass(frozen=True)
class PaperTable(Output):
    """A table of the paper: a call gives it as the paper prints it, ours next to its numbers."""

    def __call__(self, study: Inputs | str, root: str = "runs") -> pd.DataFrame:
        """The table of a study, by name or as `read_inputs` returned it; see `Plot`."""
        return to_wide(self.data(as_inputs(study, root)))


def paper_rows(
    printed: pd.DataFrame, row: Callable[[Any], Labels], column: Callable[[Any], str]
) -> list[Row]:
    """One row per number of the paper.

    Args:
      row, column: labels of a row of `paper.reference`.
    """
    return [
        {"row": row(entry), "column": column(entry), "source": "paper", "value": entry["value"]}
        for _, entry in printed.iterrows()
    ]


def our_means(
    done: pd.DataFrame, by: Sequence[str], metric: str, read_items: ItemReader
) -> dict[Any, Row]:
    """The mean over seeds of each group of finished cells: a row that lacks its place.

    Args:
      by: the columns that group the cells. By "status" all are one group.
    """
    means, rows = group_means(by_group(done, by, metric), read_items=read_items), {}
    for key, n in means.counts.items():
        mean = means.mean(key)
        rows[key] = {"source": "ours", "n": n}
        rows[key] |= {"value": mean.estimate, "low": mean.low, "high": mean.high}
    return rows


def make_table(
    rows: Sequence[Row],
    *,
    title: str,
    head: Labels,
    order: Callable[[Labels], Any] | None = None,
    column_order: Callable[[str], Any] | None = None,
    panels: Iterable[Panel] = (),
    missing: Iterable[str] = (),
    notes: Iterable[str] = (),
    plain: Sequence[str] = (),
    apart: bool = False,
) -> pd.DataFrame:
    """The numbers of a table, in order.

    Args:
      head: the names of the label columns.
      order, column_order: keys to sort rows and columns by; by default they stay as they come.
      panels: the cells that ours are from. Those that are not done are missing.
      notes: one sentence each, without a full stop.
      plain: columns of settings, printed as they are; others are percentages.
      apart: whether ours follow all of the paper's, and do not stand beside each.
    """
    labels = sorted({row["row"]: None for row in rows}, key=order or (lambda _: 0))
    columns = sorted({row["column"]: None for row in rows}, key=column_order or (lambda _: 0))
    places = [(row, column) for row in labels for column in columns]
    at = {place: i for i, place in enumerate(places)}
    ordered = sorted(rows, key=lambda row: (at[row["row"], row["column"]], row["source"] == "ours"))
    table = pd.DataFrame(
        [dict(zip(head, row["row"], strict=True)) | row for row in ordered],
        columns=[*head, "column", "source", "value", "low", "high", "n"],
    ).astype({"n": "Int64"})
    panels = [panel for panel in panels if len(panel.cells)]
    table.attrs.update(
        title=title,
        head=list(head),
        columns=columns,
        plain=list(plain),
        apart=apart,
        notes=list(dict.fromkeys(notes)),
        missing=[*(name for panel in panels for name in panel.missing()), *missing],
        provenance=sources(panels, printed=True),
    )
    return table


def to_wide(table: pd.DataFrame) -> pd.DataFrame:
    """The table as printed: numbers as text; columns (column, source) where ours are in it, and
    (source, column) where ours stand apart."""
    head, plain, apart = (table.attrs[name] for name in ("head", "plain", "apart"))
    printed = [
        _format(value, low, high, plain=column in plain)
        for column, value, low, high in zip(
            table["column"], table["value"], table["low"], table["high"], strict=True
        )
    ]
    with_ours = (table["source"] == "ours").any()
    names = ["column", "source"][:: -1 if apart else 1] if with_ours else ["column"]
    wide = table.assign(printed=printed).pivot(index=head, columns=names, values="printed")
    present = set(wide.columns)
    places: list[Any] = list(table.attrs["columns"])
    if with_ours:
        places = [(column, source) for column in places for source in ("paper", "ours")]
        if apart:
            places = sorted((place[::-1] for place in places), key=lambda one: one[0] == "ours")
    labels = table[head].drop_duplicates()
    rows = pd.MultiIndex.from_frame(labels) if len(head) > 1 else pd.Index(labels[head[0]])
    wide = wide.reindex(rows)[[place for place in places if place in present]].fillna("")
    wide.index.names = [name or None for name in head]
    wide.columns.names = [None] * len(names)
    wide.attrs = dict(table.attrs)
    return wide


def _format(value: float, low: float, high: float, *, plain: bool) -> str:
    if plain:
        return f"{value:g}"
    return f"{value:.1f}" + ("" if pd.isna(low) else f" ± {(high - low) / 2:.1f}")


def to_text(table: pd.DataFrame) -> str:
    """For a terminal: the table, notes below."""
    lines = [line.rstrip() for line in to_wide(table).to_string().splitlines()]
    notes = [part for note in _notes(table) for part in textwrap.wrap(note, WIDTH)]
    if table.attrs["provenance"]:
        notes.append(f"({table.attrs['provenance']})")
    return "\n".join([table.attrs["title"], "", *lines, "", *notes]).rstrip() + "\n"


def to_html(table: pd.DataFrame, name: str) -> str:
    """`<figure class="table">` with the table and its notes, to be put into a page.

    Numbers have the class of their source, "paper" or "ours". `name` makes the element's id.
    """
    wide = to_wide(table)
    sources = wide.columns.get_level_values(0 if table.attrs["apart"] else -1)
    classes = pd.DataFrame(
        [["ours" if source == "ours" else "paper" for source in sources]] * len(wide),
        index=wide.index,
        columns=wide.columns,
    )
    styler = Styler(wide, uuid=name, cell_ids=False).format(escape="html")
    for axis in (0, 1):
        styler = styler.format_index(escape="html", axis=axis)
    styler = styler.format_index_names(escape="html")
    # An empty header is announced as one by a screen reader; an empty cell is not.
    markup = re.sub(
        r'<th (class="blank[^"]*") ?>&nbsp;</th>',
        r"<td \1></td>",
        styler.set_td_classes(classes).to_html(),
    )
    notes, provenance = " ".join(map(html.escape, _notes(table))), table.attrs["provenance"]
    if provenance:
        notes += f' <small class="provenance">{html.escape(provenance)}</small>'
    return (
        f'<figure class="table">\n<figcaption>{html.escape(table.attrs["title"])}</figcaption>\n'
        f"{markup}<p>{notes}</p>\n</figure>\n"
    )


def _notes(table: pd.DataFrame) -> list[str]:
    notes, missing = list(table.attrs["notes"]), table.attrs["missing"]
    if (table["source"] == "ours").any():
        several = (table["n"] > 1).any()
        notes.append(
            "Ours: mean over seeds" + (" ± half of its 95 % interval" if several else ", one each")
        )
    if missing:
        rest = f"; and {len(missing) - MOST_MISSING} more" if len(missing) > MOST_MISSING else ""
        notes.append(f"Missing: {'; '.join(missing[:MOST_MISSING])}{rest}")
    return [f"{note[0].upper()}{note[1:]}." for note in notes]
