"""Table 7: repeats and the optimizer (paper App. C), and the cosine beside a linear decay.

Cells, by their fields: `model.image.kind` = vit, sigmoid with all pairs or softmax, that differ in
`loss.kind`, `optimizer.kind` and `optimizer.schedule`; at least two optimizers or schedules. Of
several settings of one of these the one with most seeds.
"""

from __future__ import annotations

import math

import numpy as np

from analysis import paper
from analysis.figures.base import Inputs
from analysis.figures.plot import points
from analysis.figures.tables import table as tables
from analysis.figures.tables.budgets import sources
from analysis.figures.tables.table import Entry, Labels, Table
from analysis.select import panels
from analysis.select.fields import with_fields
from analysis.stats.intervals import Interval, by_group

AXES = ("loss.kind", "optimizer.kind", "optimizer.schedule")
LOSS = {"sigmoid": "Sigmoid", "softmax": "Softmax"}
OPTIMIZER = {"adafactor": "ViT-Adafactor", "adam": "AdamW", "lion": "LION"}
MEAN, STD = "mean", "std"


def table(inputs: Inputs) -> Table:
    entries = []
    for _, row in paper.reference("Table 7").iterrows():
        column = MEAN if "mean" in row["metric"] else STD
        label = (row["series"], "cosine")
        entries.append(Entry(row=label, column=column, source="paper", value=row["value"]))
    for _, row in paper.reference("Appendix C").iterrows():
        label = ("Sigmoid, ViT-Adafactor", "linear")
        entries.append(Entry(row=label, column=MEAN, source="paper", value=row["value"]))
    cells = panels.plain(with_fields(inputs.cells, AXES))
    own = (cells["loss.kind"] == "softmax") | (cells["loss.pairs.kind"] == "all")
    own &= (cells["model.image.kind"] == "vit") & ~panels.multilingual(cells)
    panel = panels.select(cells[own], AXES, free=("optimizer.",), by_loss=("loss.",))
    panel = panels.most_repeated(panel)
    used = len(panel.cells.drop_duplicates(list(AXES[1:]))) > 1
    metric = inputs.quality_of(panel.cells)
    if used:
        for (loss, rule, schedule), values in by_group(panel.done, AXES, metric).items():
            at: Labels = (f"{LOSS[loss]}, {OPTIMIZER.get(rule, rule)}", schedule)
            mean = Interval(float(np.mean(values)), math.nan, math.nan)
            entries.append(tables.ours(at, MEAN, mean, len(values)))
            if len(values) > 1:
                std = Interval(float(np.std(values, ddof=1)), math.nan, math.nan)
                entries.append(tables.ours(at, STD, std, len(values)))
    return tables.build(
        title="Table 7: repeats and the optimizer, ImageNet 0-shot (%) of five runs at 32k, 3B",
        head=("", "schedule"),
        entries=entries,
        columns=[MEAN, STD],
        notes=["the paper gives one run of the linear schedule and names no loss for it"],
        missing=[*panel.missing(), *points.unmeasured(panel, metric)] if used else [],
        provenance=sources([panel] if used else []),
    )
