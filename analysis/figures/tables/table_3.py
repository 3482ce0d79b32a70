"""Table 3: scaled-up models and those of others (paper Sec. 4.6).

Cells, by their fields: sigmoid, `model.image.kind` = vit, `data.text_length` = 64, no multilingual
evaluation. Their row is the size of `model.image.variant` and the patches that `image_size` gives.
"""

from __future__ import annotations

import re

import pandas as pd

from analysis.figures.base import Inputs
from analysis.figures.plot import points
from analysis.figures.tables.table import PaperTable, make_table, our_means, paper_rows
from analysis.paper.reference import reference
from analysis.select import panels
from analysis.select.benchmarks import find_metric
from analysis.select.fields import with_fields

SIZES = {"So400m": "SO (400M)"}
VARIANT, IMAGE_SIZE = "model.image.variant", "model.image.image_size"
# Column: the paper's name of the metric, its benchmark, and the kind and measure of our evaluation.
COLUMNS = {
    "ImageNet": ("ImageNet-1k val 0-shot accuracy", "ImageNet", "zero_shot", "top1"),
    "v2": ("ImageNet-v2 0-shot accuracy", "ImageNet-v2", "zero_shot", "top1"),
    "ReaL": ("ImageNet ReaL 0-shot accuracy", "ImageNet ReaL", "zero_shot", "top1"),
    "ObjectNet": ("ObjectNet 0-shot accuracy", "ObjectNet", "zero_shot", "top1"),
    "COCO I-T": ("COCO image-to-text recall@1", "COCO", "retrieval", "image_to_text_r1"),
    "COCO T-I": ("COCO text-to-image recall@1", "COCO", "retrieval", "text_to_image_r1"),
}


def data(inputs: Inputs) -> pd.DataFrame:
    names = {printed: column for column, (printed, *_) in COLUMNS.items()}
    rows = paper_rows(
        reference("Table 3"),
        row=lambda entry: (
            entry["series"],
            entry["panel"].removeprefix("image encoder ViT "),
            entry["x"],
        ),
        column=lambda entry: names[entry["metric"]],
    )
    cells = with_fields(inputs.cells, (VARIANT, IMAGE_SIZE))
    own = (cells["model.image.kind"] == "vit") & (cells["loss.kind"] == "sigmoid")
    own &= panels.scaled_up(cells) & ~panels.multilingual(cells)
    used, missing = [], []
    for (variant, image_size), group in cells[own].groupby([VARIANT, IMAGE_SIZE]):
        match = re.fullmatch(r"(\w+)/(\d+)", str(variant))
        if not match:
            continue
        patches = (int(image_size) // int(match[2])) ** 2
        labels = ("SigLIP", SIZES.get(match[1], match[1]), str(patches))
        panel = panels.select(group, ("batch_size",))
        used.append(panel)
        for column, (_, benchmark, kind, measure) in COLUMNS.items():
            metric = find_metric(panel.done, benchmark, kind=kind, measure=measure)
            if metric is None:
                continue
            means = our_means(panel.done, ["status"], metric, inputs.read_items).values()
            rows += [mean | {"row": labels, "column": column} for mean in means]
            missing += points.without_metric(panel, metric)
    return make_table(
        rows,
        title="Table 3: scaled-up models, 0-shot and retrieval (%)",
        head=("method", "ViT", "patches"),
        column_order=list(COLUMNS).index,
        panels=used,
        missing=missing,
    )


table_3 = PaperTable("table_3", data)
