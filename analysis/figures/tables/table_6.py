"""Table 6: are the defaults good at every batch size? (paper App. C)

Cells, by their fields: sigmoid with all pairs, `model.image.kind` = vit, that differ in
`batch_size`, `optimizer.learning_rate` and `optimizer.weight_decay` and nothing else; more than one
setting at some batch size. The default is the paper's, 0.001 and 0.0001.
"""

from __future__ import annotations

import pandas as pd

from analysis.figures.base import Inputs
from analysis.figures.plot import points
from analysis.figures.plot.style import format_size, parse_size
from analysis.figures.tables.table import PaperTable, Row, make_table, our_means, paper_rows
from analysis.paper.reference import reference
from analysis.records.scores import ItemReader
from analysis.select import panels
from analysis.select.fields import with_fields

SETTING = ("optimizer.learning_rate", "optimizer.weight_decay")
DEFAULTS = (1e-3, 1e-4)
DEFAULT, BEST = "default (%)", "best of the sweep (%)"
BEST_SETTING = ("best learning rate", "best weight decay")
PRINTED = {"default (lr 0.001, wd 0.0001)": DEFAULT, "best of 9 in the sweep": BEST}


def data(inputs: Inputs) -> pd.DataFrame:
    rows = paper_rows(
        reference("Table 6"),
        row=lambda entry: (format_size(int(entry["x"])),),
        column=lambda entry: (
            PRINTED[entry["series"]]
            if entry["metric"] == "ImageNet 0-shot accuracy"
            else entry["metric"]
        ),
    )
    cells = panels.plain(with_fields(inputs.cells, SETTING))
    own = (cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all")
    own &= (cells["model.image.kind"] == "vit") & ~panels.multilingual(cells)
    panel = panels.select(cells[own], ("batch_size", *SETTING))
    settings = panel.cells.drop_duplicates(["batch_size", *SETTING])
    used = [panel] if len(settings) > panel.cells["batch_size"].nunique() else []
    metric = inputs.quality_of(panel.cells)
    if used:
        rows += _our_rows(panel.done, metric, inputs.read_items)
    return make_table(
        rows,
        title="Table 6: the defaults and the best of a sweep, SigLIP from scratch, 3B examples",
        head=("batch size",),
        order=lambda labels: parse_size(labels[0]),
        column_order=[DEFAULT, BEST, *BEST_SETTING].index,
        panels=used,
        missing=points.without_metric(panel, metric) if used else [],
        notes=[
            "Tables 5 and 7 of the paper print other numbers for its defaults at 8k and 32k: 68.6, "
            "and 69.9 or 70.1"
        ],
        plain=BEST_SETTING,
    )


def _our_rows(done: pd.DataFrame, metric: str, read_items: ItemReader) -> list[Row]:
    """At each batch size with several settings the default and the best."""
    means = our_means(done, ["batch_size", *SETTING], metric, read_items)
    rows: list[Row] = []
    for size in sorted({size for size, *_ in means}):
        mine = {key[1:]: mean for key, mean in means.items() if key[0] == size}
        if len(mine) < 2:
            continue
        best = max(mine, key=lambda setting: mine[setting]["value"])
        at = {"row": (format_size(size),), "source": "ours"}
        if DEFAULTS in mine:
            rows.append(mine[DEFAULTS] | at | {"column": DEFAULT})
        rows.append(mine[best] | at | {"column": BEST})
        rows += [
            at | {"column": column, "value": value}
            for column, value in zip(BEST_SETTING, best, strict=True)
        ]
    return rows


table_6 = PaperTable("table_6", data)
