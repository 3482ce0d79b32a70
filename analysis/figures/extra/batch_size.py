"""Quality by batch size, sigmoid against softmax: SigLiT and from scratch (paper Sec. 4.1, 4.2).

Cells: those of Fig. 2 left and middle, by their fields (see `panels.batch_sizes`).
"""

from __future__ import annotations

import functools

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.style import LOSSES, STYLES
from analysis.paper.reference import reference
from analysis.select import panels
from analysis.stats.intervals import ASSUMPTION

TOWERS = {"cached": "SigLiT", "vit": "from scratch"}  # by `model.image.kind`
HEIGHTS = {"ours": 2.1, "difference": 1.5, "paper": 1.7}


def data(inputs: Inputs, *, image: str) -> pd.DataFrame:
    """Panels "ours", "difference" (sigmoid minus softmax, paired by seed) and "paper".

    Args:
      image: "cached" (SigLiT) or "vit" (both towers from scratch), see `panels.batch_sizes`.
    """
    panel = inputs.select(panels.batch_sizes, image=image)
    metric = inputs.quality_of(inputs.cells)
    done = points.with_metric(panel.done, metric)
    done = done.assign(series=done["loss.kind"], x=done["batch_size"])
    rows = points.our_points(done, "ours", metric)
    gaps = points.loss_gaps(done, "difference", metric, series="sigmoid - softmax")
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


@style.styled
def draw(df: pd.DataFrame, *, title: str, difference: bool) -> Figure:
    """Ours, if asked sigmoid minus softmax, and the paper's panel of Fig. 2."""
    names = ["ours", *(["difference"] if difference else []), "paper"]
    names = [name for name in names if name != "paper" or (df["panel"] == name).any()]
    seeds = df[df["kind"] == "seed"]["seed"].nunique()
    intervals = f"Dots: {seeds} seeds. Bands and bars: 95 % interval of the mean, {ASSUMPTION}."
    if seeds < 2:
        intervals = "Dots: 1 seed, so there are no intervals."
    ours = f"Ours: {df.attrs.get('title', '')}."
    fig, every = layout.make_figure(
        heights=[HEIGHTS[name] for name in names],
        title=title,
        caption=layout.caption_of(df, ours, intervals, title=False),
        footer=df.attrs.get("provenance", ""),
    )
    sizes = sorted(df.loc[df["panel"] == "ours", "x"].unique())
    for axes, name in zip(every, names, strict=True):
        part = df[df["panel"] == name]
        {"ours": _draw_ours, "difference": _draw_difference, "paper": _draw_paper}[name](axes, part)
        style.batch_axis(axes, sorted(part["x"].unique()) if name == "paper" else sizes)
    return fig


def _draw_ours(axes: Axes, df: pd.DataFrame) -> None:
    for loss in LOSSES:
        mine = df[df["series"] == loss]
        style.dots(axes, mine, STYLES[loss], size=4.2)
        style.band(axes, style.means(mine), STYLES[loss])
        style.line(axes, style.means(mine), STYLES[loss])
    axes.set_ylabel(style.metric_label(df["metric"].iloc[0]))
    layout.legend_above(axes, [STYLES[loss].handle(loss) for loss in LOSSES])


def _draw_difference(axes: Axes, df: pd.DataFrame) -> None:
    look, means = STYLES["difference"], style.means(df)
    axes.axhline(0, color="black", linewidth=0.8)
    style.dots(axes, df, look, size=3.4)
    style.line(axes, means, look, marker="_", markersize=10, linestyle="")
    style.bars(axes, means, look)
    axes.set_ylabel("sigmoid \N{MINUS SIGN} softmax\n(points)")
    if not len(df):
        axes.text(0.5, 0.6, "no seed with both losses", transform=axes.transAxes, ha="center")


def _draw_paper(axes: Axes, df: pd.DataFrame) -> None:
    for loss in LOSSES:
        look, mine = STYLES[loss], df[df["series"] == loss]
        hollow = {"marker": look.marker, "markerfacecolor": "white", "linewidth": 0.9}
        style.line(axes, mine, look, label=f"{loss}, paper", **hollow)
    axes.set_ylabel("ImageNet\nzero-shot top-1 (%)")
    layout.legend_above(axes)


batch_size = Plot(
    "batch_size",
    functools.partial(data, image="cached"),
    functools.partial(draw, title="SigLiT: zero-shot quality against batch size", difference=True),
)
from_scratch = Plot(
    "from_scratch",
    functools.partial(data, image="vit"),
    functools.partial(
        draw, title="SigLIP from scratch: quality against batch size", difference=False
    ),
)
