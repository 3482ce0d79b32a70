"""Fig. 7: robustness to corrupted training data (paper Sec. 4.10, App. E).

Cells, by their fields: sigmoid with all pairs and softmax that differ in `data.corrupt.image`,
`.text`, `.alignment` and the loss only. A cell belongs to the panel of the probabilities that are
above zero (all equal), clean cells to every panel. At least one cell must be corrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import points, style
from analysis.figures.plot import side_by_side as beside
from analysis.figures.plot.side_by_side import PanelSpec
from analysis.select import panels

FIELDS = tuple(f"data.corrupt.{name}" for name in panels.CORRUPTIONS)
PANELS = {
    "Image": ("image",),
    "Text": ("text",),
    "Batch": ("alignment",),
    "Image & Text": ("image", "text"),
    "Image, Text & Batch": ("image", "text", "alignment"),
}
REDRAW, ANEW, LOSSES = "data.corrupt.redraw", ", drawn anew", ("sigmoid", "softmax")
SAYS = "the paper prints no numbers; it says that sigmoid stays above softmax, increasingly with p"


def data(inputs: Inputs) -> pd.DataFrame:
    """The points of the five panels, see `points`; x is the probability of corruption."""
    cells = inputs.cells
    if "loss.kind" not in cells or not set(FIELDS) & set(cells):
        return points.frame([])
    cells = cells.assign(**{f: panels.numeric(cells, f) for f in FIELDS})
    pairs = cells["loss.pairs.kind"] if "loss.pairs.kind" in cells else cells["loss.kind"]
    cells = cells[(cells["loss.kind"] == "softmax") | (pairs == "all")]
    panel = panels.select(
        cells, ("loss.kind", *FIELDS), free=("data.corrupt.",), by_loss=("loss.", "optimizer.")
    )
    if not (panel.cells[list(FIELDS)] > 0).any(axis=None):
        return points.frame([])
    done = _by_redraw(_corrupted_seeds(panel.done))
    metric = inputs.quality_of(done)
    rows: list[dict[str, Any]] = []
    for name, parts in PANELS.items():
        mine = done[[_belongs(row, parts) for _, row in done[list(FIELDS)].iterrows()]]
        p = mine[list(FIELDS)].max(axis=1)
        if (p > 0).any():
            rows += points.ours(mine.assign(x=p), name, metric)
    return points.frame(
        rows,
        panels=[panel],
        missing=points.unmeasured(panel, metric),
        notes=[SAYS],
        title=points.short_title(panel),
    )


def draw(df: pd.DataFrame) -> Figure:
    specs = [
        PanelSpec(name=name, title=name, label="ImageNet\n0-shot (%)", axis=_axis, height=1.15)
        for name in PANELS
    ]
    looks = {name: style.STYLES[name] for name in LOSSES}
    for name in LOSSES:
        looks[f"{name}{ANEW}"] = style.STYLES[f"{name}, small batch"]
    title = "Fig. 7: robustness to corrupted training data"
    return beside.draw(df, specs, looks, title=title, legend_columns=2)


def _corrupted_seeds(done: pd.DataFrame) -> pd.DataFrame:
    """The seeds that data were corrupted for: other clean cells have nothing to stand beside."""
    corrupted = (done[list(FIELDS)] > 0).any(axis=1)
    return done[done["seed"].isin(done.loc[corrupted, "seed"])]


def _by_redraw(done: pd.DataFrame) -> pd.DataFrame:
    """With the series of each cell: its loss, and apart those whose corruption is drawn anew at
    each visit, where a study has both kinds. Clean cells belong to both."""
    corrupted = (done[list(FIELDS)] > 0).any(axis=1)
    anew = panels.numeric(done, REDRAW) > 0
    plain = done.assign(series=done["loss.kind"])
    if (anew & corrupted).any() and (~anew & corrupted).any():
        fixed, drawn = plain[~anew | ~corrupted], plain[anew | ~corrupted]
        return pd.concat([fixed, drawn.assign(series=drawn["series"] + ANEW)])
    return plain


def _belongs(row: pd.Series, parts: Sequence[str]) -> bool:
    """Corrupted in these parts with one probability and in no other, or clean."""
    inside = {row[f"data.corrupt.{name}"] for name in parts}
    outside = [row[f"data.corrupt.{n}"] for n in panels.CORRUPTIONS if n not in parts]
    return len(inside) == 1 and not any(outside)


def _axis(axes: Axes, values: list[Any]) -> None:
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.set_xlabel("p(corruption)")


fig_7 = Plot("fig_7", data, draw)
