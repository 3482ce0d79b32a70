"""Fig. 7: robustness to corrupted training data (paper Sec. 4.10, App. E).

Cells, by their fields: sigmoid with all pairs and softmax that differ in `data.corruption.image`,
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
from analysis.figures.plot import points
from analysis.figures.plot.points import Row
from analysis.figures.plot.side_by_side import PanelSpec, draw_panels
from analysis.figures.plot.style import LOSSES, STYLES
from analysis.select import panels

FIELDS = [f"data.corruption.{name}" for name in panels.CORRUPTIONS]
PANELS = {
    "Image": ("image",),
    "Text": ("text",),
    "Batch": ("alignment",),
    "Image & Text": ("image", "text"),
    "Image, Text & Batch": ("image", "text", "alignment"),
}
REDRAW, ANEW = "data.corruption.resample_each_epoch", ", drawn anew"
PAPER_SAYS = (
    "the paper prints no numbers; it says that sigmoid stays above softmax, increasingly with p"
)


def data(inputs: Inputs) -> pd.DataFrame:
    """The points of the five panels, see `points`; x is the probability of corruption.

    Where a study corrupts both once and anew at each visit, the latter have series of their own.
    Clean cells belong to both.
    """
    cells = inputs.cells
    if "loss.kind" not in cells or not set(FIELDS) & set(cells):
        return points.make_table([])
    cells = cells.assign(**{field: panels.numeric(cells, field) for field in FIELDS})
    pairs = cells["loss.pairs.kind"] if "loss.pairs.kind" in cells else cells["loss.kind"]
    cells = cells[(cells["loss.kind"] == "softmax") | (pairs == "all")]
    panel = panels.select(
        cells, ("loss.kind", *FIELDS), free=("data.corruption.",), by_loss=("loss.", "optimizer.")
    )
    if not (panel.cells[FIELDS] > 0).any(axis=None):
        return points.make_table([])
    done = panel.done.assign(series=panel.done["loss.kind"])
    # Clean cells of other seeds have no corrupted cell to be compared with.
    corrupted = (done[FIELDS] > 0).any(axis=1)
    done = done[done["seed"].isin(done.loc[corrupted, "seed"])]
    corrupted, anew = (done[FIELDS] > 0).any(axis=1), panels.numeric(done, REDRAW) > 0
    if (anew & corrupted).any() and (~anew & corrupted).any():
        redrawn = done[anew | ~corrupted]
        redrawn = redrawn.assign(series=redrawn["series"] + ANEW)
        done = pd.concat([done[~anew | ~corrupted], redrawn])
    metric = inputs.quality_of(done)
    rows: list[Row] = []
    for name, parts in PANELS.items():
        inside = [f"data.corruption.{part}" for part in parts]
        outside = [field for field in FIELDS if field not in inside]
        own = (done[inside].nunique(axis=1) == 1) & (done[outside] == 0).all(axis=1)
        p = done.loc[own, inside[0]]
        if (p > 0).any():
            rows += points.our_points(done[own].assign(x=p), name, metric)
    return points.make_table(
        rows,
        panels=[panel],
        missing=points.without_metric(panel, metric),
        notes=[PAPER_SAYS],
        title=points.describe_panel(panel),
    )


def draw(df: pd.DataFrame) -> Figure:
    specs = [
        PanelSpec(name=name, title=name, label="ImageNet\n0-shot (%)", axis=_axis, height=1.15)
        for name in PANELS
    ]
    styles = {loss: STYLES[loss] for loss in LOSSES}
    styles |= {f"{loss}{ANEW}": STYLES[f"{loss}, small batch"] for loss in LOSSES}
    title = "Fig. 7: robustness to corrupted training data"
    return draw_panels(df, specs, styles, title=title, legend_columns=2)


def _axis(axes: Axes, values: Sequence[Any]) -> None:
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.set_xlabel("p(corruption)")


fig_7 = Plot("fig_7", data, draw)
