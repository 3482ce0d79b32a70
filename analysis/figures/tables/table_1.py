"""Table 1: SigLiT and SigLIP on few chips (paper Sec. 4.4, 4.5).

Cells, by their fields, in the order of the rows: cached images with an L text tower of 12 blocks;
cached images with a whole L; a tower from a checkpoint (`model.init`) without weight decay
(`optimizer.image.wd_mult` = 0) at 16k; and B/16 with B from scratch at 32k, by
`budget.examples` of 3.6B and 9B. (The paper does not give the examples of the last two rows: its
73.4 is Table 5's at 9B; 3.6B is two fifths of that, as two days are of five.)
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from analysis.figures.base import Inputs
from analysis.figures.plot import points
from analysis.figures.tables.table import Labels, PaperTable, make_table, our_means, paper_rows
from analysis.paper.reference import reference
from analysis.select import panels
from analysis.select.fields import with_fields

COLUMN = "ImageNet 0-shot (%)"
FIELDS = (
    *("model.image.kind", "model.image.variant", "model.text.variant", "model.text.depth"),
    *("model.init", "optimizer.schedule", "optimizer.kind"),
)


def data(inputs: Inputs) -> pd.DataFrame:
    printed = reference("Table 1")
    printed = printed[printed["panel"] == "v4"]  # others are of the caption and of version 3
    rows = paper_rows(printed, row=_labels, column=lambda _: COLUMN)
    cells = with_fields(inputs.cells, FIELDS)
    used, missing = [], []
    for labels, pick in zip([row["row"] for row in rows], PICKS, strict=True):
        panel = panels.select(cells[pick(cells)], ("batch_size",))
        metric = inputs.quality_of(panel.cells)
        means = our_means(panel.done, ["status"], metric, inputs.read_items).values()
        rows += [mean | {"row": labels, "column": COLUMN} for mean in means]
        missing += points.without_metric(panel, metric)
        used.append(panel)
    return make_table(
        rows,
        title="Table 1: few chips",
        head=("", "image", "text", "batch size", "TPUv4 chips", "days"),
        panels=used,
        missing=missing,
        notes=["the paper's caption and text say 79.7 where its table prints 79.8"],
    )


def _labels(entry: pd.Series) -> Labels:
    parts = dict(part.split("=", 1) for part in entry["x"].split(";"))
    names = ("image", "text", "BS", "TPUv4 chips", "days")
    return (entry["series"], *(parts[name] for name in names))


def _cached(depth: int) -> Callable[[pd.DataFrame], pd.Series]:
    def pick(cells: pd.DataFrame) -> pd.Series:
        large = (cells["model.image.kind"] == "cached") & (cells["model.text.variant"] == "L")
        return large & (panels.numeric(cells, "model.text.depth") == depth)

    return pick


def _tuned(cells: pd.DataFrame) -> pd.Series:
    decay = panels.numeric(cells, "optimizer.image.wd_mult", otherwise=1.0)
    own = cells["model.init"].notna() & (cells["model.image.kind"] == "vit") & (decay == 0)
    return own & (cells["batch_size"] == 16_384) & (cells["model.text.variant"] == "B")


def _scratch(examples: float) -> Callable[[pd.DataFrame], pd.Series]:
    def pick(cells: pd.DataFrame) -> pd.Series:
        base = cells["model.image.variant"] == "B/16"
        base &= (cells["model.text.variant"] == "B") & cells["model.init"].isna()
        base &= (cells["loss.kind"] == "sigmoid") & (cells["batch_size"] == 32_768)
        base &= ~panels.multilingual(cells) & (cells["optimizer.schedule"] == "cosine")
        return base & (panels.numeric(cells, "budget.examples") == examples)

    return pick


# The cells of each row. A whole text tower has no `depth`.
PICKS = (_cached(12), _cached(0), _tuned, _scratch(3.6e9), _scratch(9e9))

table_1 = PaperTable("table_1", data)
