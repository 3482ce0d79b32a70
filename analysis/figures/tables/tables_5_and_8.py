"""Tables 5 and 8: quality by batch size, budget and loss (paper Sec. 4.1, 4.2, App. A, B; Fig. 2).

Cells, by their fields: none from a checkpoint, clean data, no multilingual evaluation; sigmoid with
all pairs and softmax at each `budget.examples`; `model.image.kind` = vit (Table 5) or cached
(Table 8).
"""

from __future__ import annotations

import functools
import re

import pandas as pd

from analysis.figures.base import Inputs
from analysis.figures.plot import points
from analysis.figures.plot.style import format_count, format_size, parse_size
from analysis.figures.tables.table import PaperTable, make_table, our_means, paper_rows
from analysis.paper.reference import reference
from analysis.select import panels

UNITS = {"k": 1e3, "M": 1e6, "B": 1e9}


def data(inputs: Inputs, *, name: str, image: str, title: str) -> pd.DataFrame:
    """The paper's numbers and, at each budget of examples, our means."""
    rows = paper_rows(
        reference(name),
        row=lambda entry: (format_size(int(entry["x"])),),
        column=lambda entry: f"{entry['panel'].split()[0]} {entry['series'].lower()}",
    )
    printed = {_budget(row["column"]) for row in rows}
    missing: list[str] = []
    notes: list[str] = []
    used: list[panels.Panel] = []
    for budget, panel in inputs.select(panels.by_budget, image=image).items():
        # A single batch size at a budget that the paper does not have answers another question.
        if budget not in printed and panel.cells["batch_size"].nunique() == 1:
            continue
        used.append(panel)
        metric = inputs.quality_of(panel.cells)
        ours = [
            mean | {"row": (format_size(size),), "column": f"{format_count(budget)} {loss}"}
            for (loss, size), mean in our_means(
                panel.done, ["loss.kind", "batch_size"], metric, inputs.read_items
            ).items()
        ]
        rows += ours
        missing += points.without_metric(panel, metric)
        notes += [f"ours measured by {metric}"] if ours else []
    return make_table(
        rows,
        title=title,
        head=("batch size",),
        order=lambda labels: parse_size(labels[0]),
        column_order=lambda column: (_budget(column), column.endswith("softmax")),
        panels=used,
        missing=missing,
        notes=notes,
    )


def _budget(column: str) -> float:
    number, unit = re.match(r"([\d.]+)([kMB]?)", column).groups()  # type: ignore[union-attr]
    return float(number) * UNITS.get(unit, 1)


table_5 = PaperTable(
    "table_5",
    functools.partial(
        data,
        name="Table 5",
        image="vit",
        title="Table 5: SigLIP from scratch, ImageNet 0-shot (%) by batch size and examples seen",
    ),
)
table_8 = PaperTable(
    "table_8",
    functools.partial(
        data,
        name="Table 8",
        image="cached",
        title="Table 8: SigLiT, ImageNet 0-shot (%) by batch size and examples seen",
    ),
)
