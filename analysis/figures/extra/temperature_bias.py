"""Temperature and bias at the end of training by batch size and loss, and the prior log odds.

Cells: those of Fig. 2, by their fields (see `panels.batch_sizes`): SigLiT and from scratch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.batch_size import TOWERS
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import LOSSES, STYLES
from analysis.select import panels
from analysis.select.deciding import FEWEST_STEPS, steps_by_size, too_poor, too_short
from analysis.select.panels import Panel
from analysis.stats import fit_slope
from analysis.stats.intervals import by_group, group_means

FEWEST_SIZES = 3
TEMPERATURE, BIAS = "train/t", "train/b"
LABELS = {TEMPERATURE: "log temperature $t'$", BIAS: "bias $b$"}


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is the tower, metric "train/t" (values are its logarithm) or "train/b", series the
    loss, x the batch size.

    Kinds "seed" and "mean" are runs that the slope rests on, "short" a mean that it does not: fewer
    than 500 steps, or below a quarter of its best. "slope": value is the change for each
    doubling of the batch with its interval, n the number of batch sizes.
    """
    rows: list[Row] = []
    used: list[Panel] = []
    parts = []
    for image, tower in TOWERS.items():
        panel = inputs.select(panels.batch_sizes, image=image)
        mine = _rows(panel, tower, inputs.quality_of(inputs.cells))
        sizes = {row["x"] for row in mine if row["kind"] in ("mean", "short")}
        if len(sizes) >= FEWEST_SIZES:
            rows += mine
            used.append(panel)
            examples = int(panel.done["examples"].max())
            parts.append(f"{tower}: {examples:,} examples")
    return points.make_table(
        rows,
        panels=used,
        title="; ".join(parts),
        why=f"no {FEWEST_SIZES} batch sizes ended with a temperature or a bias",
    )


def draw(df: pd.DataFrame) -> StudyFigure:
    """For each tower the logarithm of t, and b beside the prior log odds."""
    panels_of = list(dict.fromkeys(zip(df["panel"], df["metric"], strict=True)))
    panels_of.sort(key=lambda panel: (list(TOWERS.values()).index(panel[0]), panel[1] == BIAS))
    handles = [STYLES[loss].handle(loss) for loss in LOSSES if (df["series"] == loss).any()]
    prior = style.SeriesStyle(colour=style.GREY, marker="", line=":")
    fig, every = layout.make_figure(
        df,
        title="Temperature and bias at the end of training",
        caption=_words(df),
        columns=layout.arrange(len(panels_of), wide=4, narrow=2),
        heights=1.7,
        legend=[*handles, prior.handle("prior log odds, \N{MINUS SIGN}log(B \N{MINUS SIGN} 1)")],
    )
    for (tower, metric), axes in zip(panels_of, every, strict=True):
        _draw_panel(axes, df[(df["panel"] == tower) & (df["metric"] == metric)], metric)
        axes.set_title(tower, loc="left")
    for metric in LABELS:
        layout.share_limits(
            [one for (_, mine), one in zip(panels_of, every, strict=True) if mine == metric]
        )
    return fig


def _rows(panel: Panel, tower: str, quality: str) -> list[Row]:
    done = panel.done
    if done.empty:
        return []
    short = set(too_short(steps_by_size(done)))
    rows: list[Row] = []
    for loss, mine in done.groupby("loss.kind"):
        means = {b: float(np.mean(v)) for b, v in by_group(mine, ["batch_size"], quality).items()}
        hollow = short | set(too_poor(means))
        for metric in LABELS:
            known = points.with_metric(mine, metric)
            if known.empty:
                continue
            if metric == TEMPERATURE:
                known = known.assign(**{metric: np.log(known[metric].astype(float))})
            common = {"panel": tower, "source": "ours", "series": loss, "metric": metric}
            long = known[~known["batch_size"].isin(hollow)]
            rows += [
                common
                | {"kind": "seed", "x": int(row["batch_size"]), "value": row[metric]}
                | {"seed": row["seed"], "id": row["id"]}
                for _, row in long.iterrows()
            ]
            rows += _mean_rows(long, known, metric, common)
    return rows


def _mean_rows(long: pd.DataFrame, known: pd.DataFrame, metric: str, common: Row) -> list[Row]:
    """Means, those of short runs too, and the slope over the others."""
    values = by_group(long, ["batch_size"], metric)
    pooled = group_means(values)
    rows: list[Row] = []
    for size in sorted(values):
        mean = pooled.mean(size)
        rows.append(
            common | {"kind": "mean", "x": int(size), "n": len(values[size])}
            | {"value": mean.estimate, "low": mean.low, "high": mean.high}
        )  # fmt: skip
    rest = known[~known["batch_size"].isin(list(values))]
    rows += [
        common | {"kind": "short", "x": int(size), "value": float(cells[metric].mean())}
        | {"n": len(cells)}
        for size, cells in rest.groupby("batch_size")
    ]  # fmt: skip
    slope = fit_slope({math.log2(size): each for size, each in values.items()})
    if slope is not None:
        rows.append(
            common | {"kind": "slope", "value": slope.estimate, "n": len(values)}
            | {"low": slope.low, "high": slope.high}
        )  # fmt: skip
    return rows


def _draw_panel(axes: Axes, df: pd.DataFrame, metric: str) -> None:
    sizes = sorted({int(x) for x in df.loc[df["kind"].isin(["mean", "short"]), "x"]})
    for loss in LOSSES:
        look, mine = STYLES[loss], df[df["series"] == loss]
        means, short = style.means(mine), mine[mine["kind"] == "short"]
        style.dots(axes, mine, look, size=2.4)
        style.bars(axes, means, look)
        style.line(axes, means, look, marker=look.marker)
        hollow: dict[str, Any] = {"linestyle": "", "marker": look.marker}
        style.line(axes, short, look, **hollow, markerfacecolor="white")
    if metric == BIAS:
        x = np.geomspace(max(sizes[0], 2), max(sizes[-1], 4), 50)
        axes.plot(x, -np.log(x - 1), color=style.GREY, linestyle=":")
    axes.set_ylabel(LABELS[metric])
    style.batch_axis(axes, sizes)


def _words(df: pd.DataFrame) -> list[str]:
    slopes = df[df["kind"] == "slope"]
    texts = []
    for tower in dict.fromkeys(slopes["panel"]):
        parts = []
        for _, row in slopes[slopes["panel"] == tower].iterrows():
            name, digits = ("t'", 3) if row["metric"] == TEMPERATURE else ("b", 2)
            value, *ends = (f"{row[end]:+.{digits}f}" for end in ("value", "low", "high"))
            parts.append(f"{row['series']} {name} {value} [{', '.join(ends)}]")
        texts.append(f"{tower[0].upper()}{tower[1:]}: {'; '.join(parts)}")
    words = ["Bars: 95 % interval of the mean."]
    if (df["kind"] == "short").any():
        words.append(
            f"Hollow, in no slope: fewer than {FEWEST_STEPS} steps, or below a quarter of the best "
            "quality of the loss."
        )
    if texts:
        words.append(
            f"Change for each doubling of B (prior: {-math.log(2):.2f}), with 95 % intervals from "
            "seeds or from the scatter about a line, whichever is wider."
        )
        words += [f"{text}." for text in texts]
    return words


temperature_bias = Plot("temperature_bias", data, draw)
