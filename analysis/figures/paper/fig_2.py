"""Fig. 2: the effect of the batch size (paper Sec. 4.1, 4.2, 4.3).

Cells, by their fields; none on corrupted data or started from a checkpoint:

- left, SigLiT: `model.image.kind` = cached, sigmoid with all pairs and softmax;
- middle, SigLIP from scratch: `model.image.kind` = vit, the same losses, no multilingual `evals`;
- right, mSigLIP: see `analysis.select.multilingual`.

In each the batch size varies and nothing else; of several budgets see `panels.batch_sizes`.
"""

from __future__ import annotations

import pandas as pd

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import points
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.side_by_side import PanelSpec, draw_panels
from analysis.figures.plot.style import LOSSES, STYLES
from analysis.paper.reference import reference
from analysis.select import multilingual, panels

PANELS = [
    PanelSpec(name=name, title=title, label=label)
    for name, title, label in (
        ("left", "SigLiT", "ImageNet\n0-shot (%)"),
        ("middle", "SigLIP from scratch", "ImageNet\n0-shot (%)"),
        ("right", "mSigLIP, 36 languages", "XM3600 text to\nimage R@1 (%)"),
    )
]


def data(inputs: Inputs) -> pd.DataFrame:
    """The points of the three panels, see `points`."""
    rows: list[Row] = []
    used, missing, titles = [], [], []
    selection = {"right": inputs.select(multilingual.by_batch_size)}
    for name, image in (("left", "cached"), ("middle", "vit")):
        selection[name] = inputs.select(panels.batch_sizes, image=image)
    for spec in PANELS:
        panel, done = selection[spec.name], selection[spec.name].done
        metric = inputs.quality_of(panel.cells)
        if spec.name == "right":
            metric = multilingual.mean_recall(panel.cells)
        done = done.assign(series=done["loss.kind"], x=done["batch_size"])
        rows += points.our_points(done, spec.name, metric, inputs.read_items)
        missing += points.without_metric(panel, metric)
        if len(panel.cells):
            used.append(panel)
            steps = panels.describe_steps(panel.cells)
            titles.append(f"{spec.title}: {points.describe_panel(panel)}{steps}")
    for spec in PANELS:
        table = reference("Fig. 2", panel=spec.name)
        series, x = table["series"].str.lower(), table["x"].astype(int)
        rows += points.paper_points(table, spec.name, series=series, x=x)
    return points.make_table(rows, panels=used, missing=missing, title="; ".join(titles))


def draw(df: pd.DataFrame) -> StudyFigure:
    """Left, middle and right above one another."""
    styles = {loss: STYLES[loss] for loss in LOSSES}
    return draw_panels(df, PANELS, styles, title="Fig. 2: the effect of the batch size")


fig_2 = Plot("fig_2", data, draw)
