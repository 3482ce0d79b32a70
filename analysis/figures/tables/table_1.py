"""Table 1: SigLiT and SigLIP on few chips (paper Sec. 4.4, 4.5).

Cells, by their fields, in the order of the rows: cached images beside an L text tower of 12 blocks;
cached images beside a whole L; a tower from a checkpoint (`model.init`) without weight decay
(`optimizer.image.decay_times` = 0) at 16k; and B/16 with B from scratch at 32k, by
`budget.examples` of 3.6B and 9B. (The paper does not give the examples of the last two rows: its
73.4 is Table 5's at 9B; 3.6B is two fifths of that, as two days are of five.)
"""

from __future__ import annotations

from collections.abc import Callable

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

HEAD = ("", "image", "text", "batch size", "TPUv4 chips", "days")
COLUMN = "ImageNet 0-shot (%)"
FIELDS = (
    *("model.image.kind", "model.image.variant", "model.text.variant", "model.text.depth"),
    *("model.init", "optimizer.schedule", "optimizer.kind"),
)


def table(inputs: Inputs) -> Table:
    printed = paper.reference("Table 1")
    rows = list(dict.fromkeys(printed["x"]))
    body = printed[printed["panel"] == "v4"].set_index("x")
    labels = {x: _labels(body.loc[x, "series"], x) for x in rows}
    entries = [
        Entry(row=labels[x], column=COLUMN, source="paper", value=body.loc[x, "value"])
        for x in rows
    ]
    cells = with_fields(inputs.cells, FIELDS)
    used, missing = [], []
    for x, pick in zip(rows, PICKS, strict=True):
        panel = panels.select(cells[pick(cells)], ("batch_size",))
        metric = inputs.quality_of(panel.cells)
        means = pooled_means(by_group(panel.done.assign(one=0), ["one"], metric))
        entries += [
            tables.ours(labels[x], COLUMN, means.mean(one), n) for one, n in means.counts.items()
        ]
        if len(panel.cells):
            used.append(panel)
            missing += [*panel.missing(), *points.unmeasured(panel, metric)]
    return tables.build(
        title="Table 1: few chips",
        head=HEAD,
        entries=entries,
        rows=[labels[x] for x in rows],
        notes=["the paper's caption and text say 79.7 where its table prints 79.8"],
        missing=missing,
        provenance=sources(used),
    )


def _labels(series: str, x: str) -> Labels:
    parts = dict(part.split("=", 1) for part in x.split(";"))
    return (series, parts["image"], parts["text"], parts["BS"], parts["TPUv4 chips"], parts["days"])


def _cached(cells: pd.DataFrame, depth: int | None) -> pd.Series:
    depths = panels.numeric(cells, "model.text.depth")
    large = (cells["model.image.kind"] == "cached") & (cells["model.text.variant"] == "L")
    return large & (depths == (depth or 0))


def _tuned(cells: pd.DataFrame) -> pd.Series:
    decay = panels.numeric(cells, "optimizer.image.decay_times", otherwise=1.0)
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


PICKS: tuple[Callable[[pd.DataFrame], pd.Series], ...] = (
    lambda cells: _cached(cells, 12),
    lambda cells: _cached(cells, None),
    _tuned,
    _scratch(3.6e9),
    _scratch(9e9),
)
