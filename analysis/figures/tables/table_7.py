"""Table 7: repeats and the optimizer (paper App. C), and the cosine next to a linear decay.

Cells, by their fields: `model.image.kind` = vit, sigmoid with all pairs or softmax, that differ in
`loss.kind`, `optimizer.kind` and `optimizer.schedule`; at least two optimizers or schedules. Of
several settings of one of these the one with most seeds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.figures.base import Inputs
from analysis.figures.plot import points
from analysis.figures.tables.table import PaperTable, Row, make_table, paper_rows
from analysis.paper.reference import reference
from analysis.select import panels
from analysis.select.fields import with_fields
from analysis.stats.intervals import by_group

AXES = ("loss.kind", "optimizer.kind", "optimizer.schedule")
OPTIMIZERS = {"adafactor": "ViT-Adafactor", "adam": "AdamW", "lion": "LION"}
MEAN, STD = "mean", "std"


def data(inputs: Inputs) -> pd.DataFrame:
    rows = paper_rows(
        reference("Table 7"),
        row=lambda entry: (entry["series"], "cosine"),
        column=lambda entry: MEAN if "mean" in entry["metric"] else STD,
    )
    rows += paper_rows(
        reference("Appendix C"),
        row=lambda _: ("Sigmoid, ViT-Adafactor", "linear"),
        column=lambda _: MEAN,
    )
    cells = panels.plain(with_fields(inputs.cells, AXES))
    own = (cells["loss.kind"] == "softmax") | (cells["loss.pairs.kind"] == "all")
    own &= (cells["model.image.kind"] == "vit") & ~panels.multilingual(cells)
    panel = panels.select(cells[own], AXES, free=("optimizer.",), by_loss=("loss.",))
    panel = panels.most_repeated(panel)
    used = [panel] if len(panel.cells.drop_duplicates(list(AXES[1:]))) > 1 else []
    metric = inputs.quality_of(panel.cells)
    if used:
        rows += _our_rows(panel.done, metric)
    return make_table(
        rows,
        title="Table 7: repeats and the optimizer, ImageNet 0-shot (%) of five runs at 32k, 3B",
        head=("", "schedule"),
        column_order=[MEAN, STD].index,
        panels=used,
        missing=points.without_metric(panel, metric) if used else [],
        notes=["the paper gives one run of the linear schedule and names no loss for it"],
    )


def _our_rows(done: pd.DataFrame, metric: str) -> list[Row]:
    """Mean and standard deviation over seeds."""
    rows: list[Row] = []
    for (loss, optimizer, schedule), values in by_group(done, AXES, metric).items():
        labels = (f"{loss.capitalize()}, {OPTIMIZERS.get(optimizer, optimizer)}", schedule)
        common = {"row": labels, "source": "ours", "n": len(values)}
        rows.append(common | {"column": MEAN, "value": float(np.mean(values))})
        if len(values) > 1:
            rows.append(common | {"column": STD, "value": float(np.std(values, ddof=1))})
    return rows


table_7 = PaperTable("table_7", data)
