"""Quality by learning rate at each batch size, and the best rate tried.

Cells: those of one loss with all pairs, at two learning rates or more for some batch size, that
differ in nothing but `batch_size` and `optimizer.learning_rate`. The loss with more cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.select import panels
from analysis.select.fields import most_complete, same_fields, with_fields
from analysis.select.panels import Panel

RATE = "optimizer.learning_rate"
AXES = ("batch_size", RATE)


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel "response": x is the learning rate, series the batch size. Panel "best": x is the batch
    size, value the best rate, kind "inside" or "edge" of those tried; `low` and `high` are its
    neighbours, and n is how many were tried."""
    cells = with_fields(inputs.cells, [RATE, "loss.pairs.kind"])
    pool = cells[(cells["loss.kind"] == "softmax") | (cells["loss.pairs.kind"] == "all")]
    several = pool.groupby(["loss.kind", "batch_size"])[RATE].transform("nunique") >= 2
    chosen = most_complete(pool[several], same_fields(pool, AXES), AXES)
    panel = Panel(cells=chosen, axes=AXES, points=())
    if chosen.empty or chosen[RATE].nunique() < 2:
        return points.make_table([])
    done = panel.done.assign(series=panel.done["batch_size"], x=panel.done[RATE])
    rows = points.our_points(done, "response", inputs.quality)
    best = _best_rates([row for row in rows if row["kind"] == "mean"])
    loss = chosen["loss.kind"].iloc[0]
    return points.make_table(
        [*rows, *best] if best else [],
        panels=[panel],
        missing=points.without_metric(panel, inputs.quality),
        title=f"{loss}; {panels.title(panel).partition('; learning rate')[0]}",
        why="" if best else "no batch size has cells that ended at two learning rates",
    )


def draw(df: pd.DataFrame) -> StudyFigure:
    """The response at each batch size; below, the best rate tried, edges marked."""
    best = df[df["panel"] == "best"]
    edges = [style.format_size(size) for size in best.loc[best["kind"] == "edge", "x"]]
    words = ["Bars below: from the rate tried below the best one to the one above it."]
    if edges:
        words.append(
            f"At B = {', '.join(edges)} the best rate is the lowest or highest tried, and a better "
            "one may lie beyond: these batch sizes are not compared at their best."
        )
    fig, (response, optimum) = layout.make_figure(
        df,
        title="Learning rate by batch size",
        caption=words,
        columns=layout.arrange(2, wide=2),
        heights=1.9,
    )
    _draw_response(response, df[df["panel"] == "response"])
    _draw_optimum(optimum, best)
    return fig


def _best_rates(means: list[Row]) -> list[Row]:
    rows = []
    for size in sorted({row["series"] for row in means}):
        mine = sorted((row for row in means if row["series"] == size), key=lambda row: row["x"])
        if len(mine) < 2:
            continue  # its other rates have not ended
        at = max(range(len(mine)), key=lambda i: mine[i]["value"])
        edge = at in (0, len(mine) - 1)
        rows.append(
            {"panel": "best", "source": "ours", "series": size, "x": size, "metric": RATE}
            | {"kind": "edge" if edge else "inside", "value": mine[at]["x"], "n": len(mine)}
            | {"low": mine[max(at - 1, 0)]["x"], "high": mine[min(at + 1, len(mine) - 1)]["x"]}
            | {"id": "lowest" if at == 0 else "highest" if edge else ""}
        )
    return rows


def _draw_response(axes: Axes, df: pd.DataFrame) -> None:
    sizes = sorted({int(size) for size in df["series"]})
    for size, look in style.batch_size_styles(sizes).items():
        mine = df[df["series"].astype(int) == size]
        style.dots(axes, mine, look, size=3.0)
        style.bars(axes, style.means(mine), look)
        style.line(axes, style.means(mine), look, label=f"B = {style.format_size(size)}")
    style.plain_log(axes, "x")
    axes.set_xlabel("learning rate")
    axes.set_ylabel(style.metric_label(df["metric"].iloc[0]))
    layout.legend_above(axes)


def _draw_optimum(axes: Axes, df: pd.DataFrame) -> None:
    colour = style.STYLES["sigmoid"].colour
    small: dict[str, Any] = {"fontsize": style.SMALL}
    for _, row in df.iterrows():
        edge = row["kind"] == "edge"
        face = "white" if edge else colour
        axes.plot([row["x"]] * 2, [row["low"], row["high"]], color=colour, linewidth=0.8)
        axes.plot(
            *(row["x"], row["value"]), marker="o", markersize=5, color=colour, markerfacecolor=face
        )
        if edge:
            above = 6 if row["id"] == "highest" else -11
            axes.annotate("edge", (row["x"], row["value"]), **small, ha="center",
                          xytext=(0, above), textcoords="offset points")  # fmt: skip
    sizes = np.array(sorted(df["x"].astype(float)))
    middle = float(np.exp(np.log(df["value"].astype(float)).mean()))
    root = middle * np.sqrt(sizes / np.exp(np.log(sizes).mean()))
    axes.plot(sizes, root, color="#999999", linestyle=":", linewidth=0.9)
    axes.text(0.98, 0.06, "dotted: slope of sqrt(B)", **small, ha="right", color=style.GREY,
              transform=axes.transAxes)  # fmt: skip
    axes.margins(y=0.25)
    style.plain_log(axes)
    axes.set_ylabel("best rate tried")
    style.batch_axis(axes, [int(size) for size in sizes])


rate_by_batch = Plot("rate_by_batch", data, draw)
