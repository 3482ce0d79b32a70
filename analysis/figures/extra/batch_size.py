"""Quality by batch size, sigmoid against softmax: SigLiT and from scratch (paper Sec. 4.1, 4.2).

Cells: those of Fig. 2 left and middle, by their fields (see `panels.batch_sizes`).
"""

from __future__ import annotations

import functools

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.style import LOSSES, STYLES
from analysis.paper.reference import reference
from analysis.select import panels
from analysis.stats.intervals import ASSUMPTION

TITLES = {"ours": "ours", "difference": "sigmoid \N{MINUS SIGN} softmax", "paper": "the paper"}
TOWERS = {"cached": "SigLiT", "vit": "from scratch"}  # by `model.image.kind`


def data(inputs: Inputs, *, image: str) -> pd.DataFrame:
    """Panels "ours", "difference" (sigmoid minus softmax, paired by seed) and "paper".

    Args:
      image: "cached" (SigLiT) or "vit" (both towers from scratch), see `panels.batch_sizes`.
    """
    panel = inputs.select(panels.batch_sizes, image=image)
    metric = inputs.quality_of(inputs.cells)
    done = points.with_metric(panel.done, metric)
    done = done.assign(series=done["loss.kind"], x=done["batch_size"])
    rows = points.our_points(done, "ours", metric, inputs.read_items)
    gaps = points.loss_gaps(
        done, "difference", metric, inputs.read_items, series="sigmoid - softmax"
    )
    rows += [row for row in gaps if row["kind"] != "simultaneous"]
    if rows:
        printed = reference("Fig. 2", panel={"cached": "left", "vit": "middle"}[image])
        printed = printed.assign(series=printed["series"].str.lower(), x=printed["x"].astype(int))
        printed = printed.sort_values(["series", "x"])
        rows += points.paper_points(printed, "paper", series=printed["series"], x=printed["x"])
    missing = points.without_metric(panel, metric)
    title = panels.title(panel) if rows else ""
    table = points.make_table(rows, panels=[panel], missing=missing, title=title)
    table.attrs["metric"] = metric
    return table


def draw(df: pd.DataFrame, *, title: str, difference: bool) -> StudyFigure:
    """Ours, if asked sigmoid minus softmax, and the paper's panel of Fig. 2."""
    names = ["ours", *(["difference"] if difference else []), "paper"]
    names = [name for name in names if name != "paper" or (df["panel"] == name).any()]
    seeds = df[df["kind"] == "seed"]["seed"].nunique()
    intervals = f"Dots: {seeds} seeds. Bands and bars: 95 % interval of the mean, {ASSUMPTION}."
    if difference:
        intervals += f" {style.CUT}"
    if seeds < 2:
        intervals = "Dots: 1 seed, so there are no intervals."
    fig, every = layout.make_figure(
        df,
        title=title,
        caption=[intervals],
        columns=layout.arrange(len(names), wide=3),
        heights=1.8,
        legend=[STYLES[loss].handle(loss) for loss in LOSSES],
    )
    sizes = sorted(df.loc[df["panel"] == "ours", "x"].unique())
    for axes, name in zip(every, names, strict=True):
        part = df[df["panel"] == name]
        {"ours": _draw_ours, "difference": _draw_difference, "paper": _draw_paper}[name](axes, part)
        style.batch_axis(axes, sorted(part["x"].unique()) if name == "paper" else sizes)
        axes.set_title(TITLES[name], loc="left")
    return fig


def _draw_ours(axes: Axes, df: pd.DataFrame) -> None:
    for loss in LOSSES:
        mine = df[df["series"] == loss]
        style.dots(axes, mine, STYLES[loss], size=4.2)
        style.band(axes, style.means(mine), STYLES[loss])
        style.line(axes, style.means(mine), STYLES[loss])
    axes.set_ylabel(style.metric_label(df["metric"].iloc[0]))


def _draw_difference(axes: Axes, df: pd.DataFrame) -> None:
    look, means = STYLES["difference"], style.means(df)
    axes.axhline(0, color="black", linewidth=0.8)
    style.dots(axes, df, look, size=3.4)
    style.line(axes, means, look, marker="_", markersize=10, linestyle="")
    style.bars(axes, means, look)
    axes.set_ylabel("lead (points)")
    if len(df):
        style.limit_bars(axes, df["value"])
    else:
        axes.text(0.5, 0.6, "no seed with both losses", transform=axes.transAxes, ha="center")


def _draw_paper(axes: Axes, df: pd.DataFrame) -> None:
    for loss in LOSSES:
        look, mine = STYLES[loss], df[df["series"] == loss]
        hollow = {"marker": look.marker, "markerfacecolor": "white", "linewidth": 0.9}
        style.line(axes, mine, look, **hollow)
    axes.set_ylabel("zero-shot top-1 (%)\non ImageNet")


batch_size = Plot(
    "batch_size",
    functools.partial(data, image="cached"),
    functools.partial(draw, title="SigLiT: quality by batch size", difference=True),
)
from_scratch = Plot(
    "from_scratch",
    functools.partial(data, image="vit"),
    functools.partial(draw, title="SigLIP from scratch: quality by batch size", difference=False),
)
