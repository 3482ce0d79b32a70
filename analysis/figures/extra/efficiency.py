"""What a run costs by batch size: throughput, use of the hardware, and waiting for data.

Cells: those of Fig. 2, by their fields (see `panels.batch_sizes`). Throughput is the median over
the logged lines of a cell; what records do not hold is not drawn. Memory has a figure of its own,
`memory`; `study plan` draws what it predicted of speed.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.saturation import IMAGES, LOSSES
from analysis.figures.plot import marks, points, style
from analysis.figures.plot.quality import missing_note
from analysis.select import panels

# Of each panel: its axis, and the metric that fills it.
PARTS = {
    "throughput": ("examples per\nsecond", "train/examples_per_s"),
    "utilisation": ("model FLOPs\n(share of peak)", "train/mfu"),
    "waiting": ("waiting for data\n(share of time)", "train/data_wait_share"),
}


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is one of `PARTS` and the image tower, series the loss, x the batch size."""
    rows: list[dict[str, Any]] = []
    used = []
    for image, name in IMAGES.items():
        panel = inputs.chosen(panels.batch_sizes, image=image)
        if panel.done.empty:
            continue
        done = panel.done.assign(series=panel.done["loss.kind"], x=panel.done["batch_size"])
        before = len(rows)
        for part, (_, metric) in PARTS.items():
            if metric in done:
                measured = _typical(done, inputs.rows, metric)
                rows += points.ours(measured, f"{part}, {name}", metric)
        if len(rows) > before:
            used.append(panel)
    title = "; ".join(panels.title(panel) for panel in used)
    return points.frame(rows, panels=used, title=title)


def draw(df: pd.DataFrame) -> Figure:
    """A panel for each quantity."""
    shown = list(dict.fromkeys(df["panel"]))
    with style.context():
        fig, axes = style.figure(
            heights=[1.5] * len(shown),
            title="What a run costs by batch size",
            notes=_notes(df),
            footer=df.attrs.get("provenance", ""),
        )
        for one, name in zip(axes, shown, strict=True):
            _panel(one, df[df["panel"] == name])
            part, _, tower = name.partition(", ")
            one.set_title(tower, loc="right")
            one.set_ylabel(PARTS[part][0])
        style.legend(axes[0])
    return fig


def _typical(done: pd.DataFrame, rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """With the median over a run in place of its last value, which one pause may spoil."""
    if metric not in rows:
        return done
    medians = rows.groupby("id")[metric].median()
    return done.assign(**{metric: done["id"].map(medians)})


def _panel(axes: Axes, df: pd.DataFrame) -> None:
    for loss in LOSSES:
        mine, look = df[df["series"] == loss], style.STYLES[loss]
        if mine.empty:
            continue
        marks.dots(axes, mine, "x", look, size=3.4)
        marks.line(axes, marks.means(mine), "x", look)
        axes.plot([], [], color=look.colour, linestyle=look.line, marker=look.marker, label=loss)
    axes.set_ylim(bottom=0)
    style.batch_axis(axes, sorted({int(x) for x in df["x"]}))


def _notes(df: pd.DataFrame) -> list[str]:
    lines = [f"{df.attrs['title']}."] if df.attrs.get("title") else []
    lines.append(
        "Dots: the median over a cell's logged stretches, compilation and evaluation apart; line: "
        "mean over seeds. It is of the machine that the cells ran on, and of what else ran there."
    )
    return [*lines, *missing_note(df.attrs.get("missing", []))]


efficiency = Plot("efficiency", data, draw)
