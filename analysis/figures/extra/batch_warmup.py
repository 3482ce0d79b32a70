"""Quality of a run whose batch size grows, beside each of its sizes held constant.

Cells: see `analysis.select.branches.warm_ups`.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.lines import Line2D

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.style import LOSSES, STYLES
from analysis.select import branches, panels
from analysis.select.panels import Panel


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is the loss, x the constant batch size, or 0 of a run that grows, series its sizes."""
    pairs = inputs.select(branches.warm_ups)
    if pairs.empty:
        return points.make_table([])
    cells = inputs.cells
    sizes = dict(zip(pairs["grown"], pairs["sizes"], strict=True))
    used = cells[cells["id"].isin({*pairs["grown"], *pairs["constant"]})]
    panel = Panel(cells=used, axes=("batch_size", "loss.kind"))
    done = panel.done
    grown = done["id"].isin(pairs["grown"])
    done = done.assign(
        series=done["id"].map(sizes).fillna("constant"), x=done["batch_size"].mask(grown, 0)
    )
    rows = []
    for loss, mine in done.groupby("loss.kind"):
        rows += points.our_points(mine, str(loss), inputs.quality, inputs.read_items)
    title = panels.title(Panel(cells=used[used["id"].isin(pairs["constant"])], axes=panel.axes))
    missing = points.without_metric(panel, inputs.quality)
    return points.make_table(rows, panels=[panel], missing=missing, title=title)


def draw(df: pd.DataFrame) -> StudyFigure:
    """A panel for each loss: constant sizes as a line, the run that grows as a band."""
    df = df.assign(x=df["x"].astype(int))
    losses = [loss for loss in LOSSES if (df["panel"] == loss).any()]
    grown = df[df["x"] == 0]
    names = " or ".join(f"B = {sizes}" for sizes in dict.fromkeys(grown["series"]))
    seeds = points.count_seeds(df)
    columns = layout.arrange(len(losses), wide=2)
    fig, every = layout.make_figure(
        df,
        title="A batch size that grows against constant ones, at equal examples",
        caption=[
            f"Lines: constant batch sizes. Dotted: the batch size grows ({names}); band: its "
            f"95 % interval. {seeds[0].upper()}{seeds[1:]}: dots; bars: 95 % intervals."
        ],
        columns=columns,
        heights=1.9,
        legend=[
            *(STYLES[loss].handle(f"{loss}, constant batch size") for loss in losses),
            Line2D([], [], color=style.BLACK, linestyle=style.DOTTED, label="growing batch size"),
        ],
    )
    for axes, loss in zip(every, losses, strict=True):
        look = STYLES[loss]
        mine = df[df["panel"] == loss]
        constant = mine[mine["x"] > 0]
        style.dots(axes, constant, look)
        style.line(axes, style.means(constant).sort_values("x"), look)
        style.bars(axes, style.means(constant), look)
        for _, mean in style.means(mine[mine["x"] == 0]).iterrows():
            axes.axhline(mean["value"], color=look.colour, linestyle=style.DOTTED, linewidth=1.4)
            axes.axhspan(mean["low"], mean["high"], color=look.colour, alpha=0.16, linewidth=0)
        axes.set_title(loss, loc="left")
        axes.set_ylabel(style.metric_label(str(df["metric"].iloc[0])))
        style.batch_axis(axes, sorted(set(constant["x"])))
    layout.share_y(every, columns)
    layout.hide_inner_labels(every, columns)
    return fig


batch_warmup = Plot("batch_warmup", data, draw)
