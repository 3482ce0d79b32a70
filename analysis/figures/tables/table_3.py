"""Table 3: scaled-up models beside others (paper Sec. 4.6).

Cells, by their fields: sigmoid, `model.image.kind` = vit, `data.text_length` = 64, no multilingual
evaluation. Their row is the size of `model.image.variant` and the patches that `image_size` gives.
"""

from __future__ import annotations

import re

import pandas as pd

from analysis import paper
from analysis.figures.base import Inputs
from analysis.figures.plot import points
from analysis.figures.tables import table as tables
from analysis.figures.tables.budgets import sources
from analysis.figures.tables.table import Entry, Labels, Table
from analysis.select import panels
from analysis.select.fields import with_fields
from analysis.stats.intervals import by_group, pooled_means

HEAD = ("method", "ViT", "patches")
OURS = "SigLIP"
SIZES = {"So400m": "SO (400M)"}
# Column: what the paper calls it, its benchmark, and the kind and measure of our evaluation.
COLUMNS = {
    "ImageNet": ("ImageNet-1k val 0-shot accuracy", "ImageNet", "zero_shot", "top1"),
    "v2": ("ImageNet-v2 0-shot accuracy", "ImageNet-v2", "zero_shot", "top1"),
    "ReaL": ("ImageNet ReaL 0-shot accuracy", "ImageNet ReaL", "zero_shot", "top1"),
    "ObjectNet": ("ObjectNet 0-shot accuracy", "ObjectNet", "zero_shot", "top1"),
    "COCO I-T": ("COCO image-to-text recall@1", "COCO", "retrieval", "image_to_text_r1"),
    "COCO T-I": ("COCO text-to-image recall@1", "COCO", "retrieval", "text_to_image_r1"),
}


def table(inputs: Inputs) -> Table:
    names = {printed: column for column, (printed, *_) in COLUMNS.items()}
    entries = [
        Entry(
            row=(row["series"], row["panel"].removeprefix("image encoder ViT "), row["x"]),
            column=names[row["metric"]],
            source="paper",
            value=row["value"],
        )
        for _, row in paper.reference("Table 3").iterrows()
    ]
    cells = with_fields(inputs.cells, ("model.image.variant", "model.image.image_size"))
    own = (cells["model.image.kind"] == "vit") & (cells["loss.kind"] == "sigmoid")
    own &= panels.scaled_up(cells) & ~panels.multilingual(cells)
    cells = cells[own]
    used, missing = [], []
    for row, group in _by_row(cells):
        panel = panels.select(group, ("batch_size",))
        used.append(panel)
        missing += panel.missing()
        for column, (_, benchmark, kind, measure) in COLUMNS.items():
            metric = paper.find_metric(panel.done, benchmark, kind=kind, measure=measure)
            if metric is None:
                continue
            means = pooled_means(by_group(panel.done.assign(one=0), ["one"], metric))
            entries += [
                tables.ours(row, column, means.mean(one), n) for one, n in means.counts.items()
            ]
            missing += points.unmeasured(panel, metric)
    return tables.build(
        title="Table 3: scaled-up models, 0-shot and retrieval (%)",
        head=HEAD,
        entries=entries,
        columns=list(COLUMNS),
        missing=missing,
        provenance=sources(used),
    )


def _by_row(cells: pd.DataFrame) -> list[tuple[Labels, pd.DataFrame]]:
    found: list[tuple[Labels, pd.DataFrame]] = []
    for (variant, size), group in cells.groupby(["model.image.variant", "model.image.image_size"]):
        match = re.fullmatch(r"(\w+)/(\d+)", str(variant))
        if match:
            name = SIZES.get(match[1], match[1])
            found.append(((OURS, name, str((int(size) // int(match[2])) ** 2)), group))
    return found
