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

SHIFTED = " with a shifted bias"  # ends the series of such runs


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is the loss, x the constant batch size, or 0 of a run that grows, series its sizes.

    The series of runs whose bias follows the batch size ends with `SHIFTED`.
    """
    pairs = inputs.select(branches.warm_ups)
    if pairs.empty:
        return points.make_table([])
    cells = inputs.cells
    shifted = pairs["arm"].eq(branches.SHIFTED).map({True: SHIFTED, False: ""})
    sizes = dict(zip(pairs["grown"], pairs["sizes"] + shifted, strict=True))
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
    seeds = points.count_seeds(df)
    names = dict.fromkeys(grown["series"].str.removesuffix(SHIFTED))
    legend = [STYLES[loss].handle(f"{loss}, constant batch size") for loss in losses]
    legend.append(Line2D([], [], color=style.BLACK, linestyle=style.DOTTED, label="growing"))
    words = [
        f"Lines: constant batch sizes. Dotted: the batch size grows "
        f"({' or '.join(f'B = {sizes}' for sizes in names)}); band: its 95 % interval. "
        f"{seeds[0].upper()}{seeds[1:]}: dots; bars: 95 % intervals."
    ]
    if grown["series"].str.endswith(SHIFTED).any():
        look = STYLES[branches.SHIFTED]
        legend.append(look.handle("growing, shifted bias", marker="", linestyle=style.DOTTED))
        words.append(
            "Shifted bias: at each change of the batch size the learned bias moves with the log "
            "odds of a positive."
        )
    columns = layout.arrange(len(losses), wide=2)
    fig, every = layout.make_figure(
        df,
        title="A batch size that grows against constant ones, at equal examples",
        caption=words,
        columns=columns,
        heights=1.9,
        legend=legend,
    )
    for axes, loss in zip(every, losses, strict=True):
        look = STYLES[loss]
        mine = df[df["panel"] == loss]
        constant = mine[mine["x"] > 0]
        style.dots(axes, constant, look)
        style.line(axes, style.means(constant).sort_values("x"), look)
        style.bars(axes, style.means(constant), look)
        for _, mean in style.means(mine[mine["x"] == 0]).iterrows():
            shifted = str(mean["series"]).endswith(SHIFTED)
            colour = STYLES[branches.SHIFTED].colour if shifted else look.colour
            axes.axhline(mean["value"], color=colour, linestyle=style.DOTTED, linewidth=1.4)
            axes.axhspan(mean["low"], mean["high"], color=colour, alpha=0.16, linewidth=0)
        axes.set_title(loss, loc="left")
        axes.set_ylabel(style.metric_label(str(df["metric"].iloc[0])))
        style.batch_axis(axes, sorted(set(constant["x"])))
    layout.share_y(every, columns)
    layout.hide_inner_labels(every, columns)
    return fig


batch_warmup = Plot("batch_warmup", data, draw)
