"""Sigmoid minus softmax by batch size, paired by seed, in every quality that was recorded.

Cells: those of Fig. 2, by their fields (see `panels.batch_sizes`): SigLiT and from scratch.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.batch_size import TOWERS
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.paper.reference import FIG_2, reference
from analysis.select import panels

MOST_METRICS = 4  # of one panel; the study's quality comes first


def data(inputs: Inputs) -> pd.DataFrame:
    """See `points.loss_gaps`; panel is the image tower, series the metric."""
    rows: list[Row] = []
    used, titles = [], []
    for image, name in TOWERS.items():
        panel = inputs.select(panels.batch_sizes, image=image)
        metrics = _metrics(panel.done, inputs.quality)
        gaps = [
            row
            for metric in metrics
            for row in points.loss_gaps(panel.done, name, metric, inputs.read_items, series=metric)
        ]
        if gaps:
            rows += [*gaps, *_printed(name, image, inputs.quality)]
            used.append(panel)
            titles.append(f"{name}: {panels.title(panel)}")
    return points.make_table(rows, panels=used, title="; ".join(titles))


def _printed(tower: str, image: str, metric: str) -> list[Row]:
    """The paper's gap, in the panel of the study's quality: both are in points."""
    printed = reference("Fig. 2", panel=FIG_2[image])
    table = printed.assign(x=printed["x"].astype(int)).pivot(
        index="x", columns="series", values="value"
    )
    gap = (table["Sigmoid"] - table["Softmax"]).dropna()
    common = {"panel": tower, "source": "paper", "series": metric, "metric": metric}
    return [common | {"kind": "mean", "x": x, "value": value} for x, value in gap.items()]


def draw(df: pd.DataFrame) -> StudyFigure:
    """A panel for each metric: seeds as dots, pointwise and simultaneous intervals as bars."""
    look = style.STYLES["difference"]
    names = list(dict.fromkeys(zip(df["panel"], df["series"], strict=True)))
    words = (
        "Pairs share a seed, and so their examples and their order. Bars: 95 % interval of the "
        "mean difference, t interval over its own seeds and, where recorded, the test examples; "
        f"thin: simultaneous intervals for all batch sizes of a panel (Bonferroni). {style.CUT}"
    )
    if not df["low"].notna().any():
        words = "Pairs share a seed, and so their examples. One seed, so there are no intervals."
    hollow: dict[str, Any] = {"markerfacecolor": "white"}
    legend = []
    if (df["source"] == "paper").any():
        legend = [
            look.handle("ours", marker="_", linestyle=""),
            look.handle("the paper, ImageNet zero-shot", marker="o", **hollow),
        ]
    columns = layout.arrange(len(names), wide=4, narrow=2)
    fig, every = layout.make_figure(
        df,
        title="Sigmoid minus softmax by batch size",
        caption=[words],
        columns=columns,
        heights=1.5,
        legend=legend,
    )
    for axes, (name, metric) in zip(every, names, strict=True):
        mine = df[(df["panel"] == name) & (df["series"] == metric)]
        axes.axhline(0, color="black", linewidth=0.8)
        style.dots(axes, mine, look, size=3.0)
        theirs = mine[mine["source"] == "paper"]
        style.line(axes, theirs, look, marker="o", markersize=3.5, linewidth=0.7, **hollow)
        means = style.means(mine[mine["source"] == "ours"])
        style.line(axes, means, look, marker="_", markersize=9, linestyle="")
        style.bars(axes, means, look)
        for _, row in mine[mine["kind"] == "simultaneous"].iterrows():
            ends = [row["low"], row["high"]]
            axes.plot([row["x"]] * 2, ends, color=look.colour, linewidth=0.5, alpha=0.7)
        style.limit_bars(axes, mine["value"])
        quality = style.metric_label(metric).replace(" (%)", "")
        axes.set_title(f"{name}\n{quality}", loc="left", fontsize=style.SMALL)
        axes.set_ylabel("lead (points)")
        style.batch_axis(axes, sorted({int(x) for x in mine["x"]}))
    for tower in dict.fromkeys(df["panel"]):
        for kind in ("zero_shot", "retrieval"):
            layout.share_limits(
                [a for a, (p, m) in zip(every, names, strict=True) if p == tower and kind in m]
            )
    layout.hide_inner_labels(every, columns)
    return fig


def _metrics(done: pd.DataFrame, quality: str) -> list[str]:
    """The study's quality, then others; of a multilingual evaluation the mean over languages."""
    others = [
        key
        for key in done
        if key.startswith("eval/")
        and key.endswith(("/top1", "_r1"))
        and "_shot/val" not in key
        and key.count("_") <= 5
        and not key.startswith("eval/few_shot/")
    ]
    return list(dict.fromkeys([quality, *others]))[:MOST_METRICS]


loss_gap = Plot("loss_gap", data, draw)
