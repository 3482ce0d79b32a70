"""How far the gradients of different batches disagree along the runs, a diagnostic.

Cells: the sigmoid cells of Fig. 2 that logged `train/gradient_noise` and `train/gradient_signal`,
by their fields (see `panels.batch_sizes`).

This is no noise scale in examples: the examples of a contrastive batch are coupled through their
pairs, so the unit is the whole batch and each ratio holds for its own batch size.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.extra.rate_by_batch import style_of
from analysis.figures.extra.trajectories import lines
from analysis.figures.inputs import Inputs
from analysis.figures.plot import marks, points, style
from analysis.figures.plot.quality import missing_note
from analysis.select import panels

NOISE, SIGNAL, RATIO = "train/gradient_noise", "train/gradient_signal", "noise / signal"


def data(inputs: Inputs) -> pd.DataFrame:
    """Series is the batch size, x the examples seen, value noise over signal; see
    `points.curves`. Where the estimate of the signal is not above zero there is no row."""
    if not {NOISE, SIGNAL} <= set(inputs.cells):
        return points.frame([])
    for image in ("cached", "vit"):
        panel = inputs.chosen(panels.batch_sizes, image=image)
        done = panel.done[panel.done["loss.kind"] == "sigmoid"]
        if len(done) and {NOISE, SIGNAL} <= set(inputs.rows):
            rows = inputs.rows
            ratio = (rows[NOISE] / rows[SIGNAL]).where(rows[SIGNAL] > 0)
            done = done.assign(series=done["batch_size"])
            found = points.curves(rows.assign(**{RATIO: ratio}), done, RATIO, RATIO)
            return points.frame(found, panels=[panel], title=panels.title(panel))
    return points.frame([])


def draw(df: pd.DataFrame) -> Figure:
    """The ratio against examples seen; at the dashed line noise equals signal."""
    sizes = sorted({int(size) for size in df["series"]})
    looks = dict(zip(sizes, style_of(sizes), strict=True))
    with style.context():
        fig, (axes,) = style.figure(
            heights=[2.3],
            title="How far the gradients of two batches disagree",
            notes=_notes(df),
            footer=df.attrs.get("provenance", ""),
        )
        for (size, what, _), line in lines(df):
            thin: dict[str, Any] = {"linewidth": 0.5, "alpha": 0.4} if what == "seed" else {}
            axes.plot(line["x"].astype(float), line["value"], color=looks[size].colour, **thin)
        for size in sizes:
            axes.plot([], [], color=looks[size].colour, label=f"B = {style.short(size)}")
        axes.axhline(1, color="#333333", linewidth=0.8, linestyle=(0, (4, 2)))
        marks.plain_log(axes)
        axes.xaxis.set_major_formatter(lambda x, _: style.count(x))
        axes.set_xlabel("examples seen")
        axes.set_ylabel("noise / signal\nof the gradient")
        style.legend(axes)
    return fig


def _notes(df: pd.DataFrame) -> list[str]:
    said = [f"{df.attrs['title']}."] if df.attrs.get("title") else []
    said.append(
        "Signal: the squared norm of what the gradients of all batches share; noise: the variance "
        "about it from batch to batch, both without bias, of a few batches at the same parameters. "
        "Examples of a contrastive batch are coupled, so this predicts nothing at another batch "
        "size. Where the signal came out below zero there is no point."
    )
    return [*said, *missing_note(df.attrs.get("missing", []))]
