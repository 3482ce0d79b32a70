"""Tables 5 and 8: quality by batch size, budget and loss, on the paper's places and on ours."""

from __future__ import annotations

import re

import pandas as pd

from analysis import paper
from analysis.figures.base import Inputs
from analysis.figures.plot import points, style
from analysis.figures.tables import table as tables
from analysis.figures.tables.table import Entry, Labels, Table
from analysis.select import panels
from analysis.stats.intervals import by_group, pooled_means

LOSSES = ("sigmoid", "softmax")
UNITS = {"k": 1e3, "M": 1e6, "B": 1e9}


def table(inputs: Inputs, *, name: str, image: str, title: str) -> Table:
    """The paper's numbers and, at each budget of examples, our means.

    Args:
      image: `model.image.kind`, see `panels.by_budget`.
    """
    found = inputs.chosen(panels.by_budget, image=image)
    entries = [*_printed(name)]
    theirs = {_budget(entry.column) for entry in entries}
    # One batch size alone at a budget that the paper does not have belongs to another question.
    found = {
        budget: panel
        for budget, panel in found.items()
        if budget in theirs or panel.cells["batch_size"].nunique() > 1
    }
    missing: list[str] = []
    notes: list[str] = []
    for budget, panel in found.items():
        metric = inputs.quality_of(panel.cells)
        means = pooled_means(by_group(panel.done, ["loss.kind", "batch_size"], metric))
        entries += [
            tables.ours((style.short(size),), _column(budget, loss), means.mean((loss, size)), n)
            for (loss, size), n in sorted(means.counts.items())
        ]
        missing += [*panel.missing(), *points.unmeasured(panel, metric)]
        notes += [f"ours measured by {metric}"] if len(means.means) else []
    return tables.build(
        title=title,
        head=("batch size",),
        entries=entries,
        rows=lambda row: size_of(row[0]),
        columns=lambda column: (_budget(column), column.endswith("softmax")),
        notes=dict.fromkeys(notes),
        missing=missing,
        provenance=sources(found.values()),
    )


def sources(used: object) -> str:
    """Which records and which file of the paper's numbers."""
    cells = [panel.cells for panel in used if len(panel.cells)]  # type: ignore[attr-defined]
    records = [style.provenance(pd.concat(cells).drop_duplicates("id"))] if cells else []
    return " · ".join([*records, paper.provenance()])


def size_of(label: str) -> float:
    """A batch size of its short form: 4096 of "4k"."""
    unit = {"k": 2**10, "M": 2**20}.get(label[-1:], 1)
    return float(label.rstrip("kM")) * unit


def _printed(name: str) -> list[Entry]:
    table = paper.reference(name)
    return [
        Entry(
            row=_row(row["x"]),
            column=f"{row['panel'].split()[0]} {row['series'].lower()}",
            source="paper",
            value=row["value"],
        )
        for _, row in table.iterrows()
    ]


def _row(x: str) -> Labels:
    return (style.short(int(x)),)


def _column(budget: int, loss: str) -> str:
    return f"{style.count(budget)} {loss}"


def _budget(column: str) -> float:
    match = re.match(r"([\d.]+)([kMB]?)", column)
    assert match
    return float(match[1]) * UNITS.get(match[2], 1)
