"""Quality by learning rate at each batch size, and whether the best rate lies on the grid's edge.

Cells: those of one loss with all pairs, at two learning rates or more for some batch size, that
differ in nothing but `batch_size` and `optimizer.learning_rate`. The loss with more cells.
"""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import marks, points, style
from analysis.figures.plot.quality import label, missing_note
from analysis.select import panels
from analysis.select.fields import most_complete, same_fields, with_fields
from analysis.select.panels import Panel

RATE = "optimizer.learning_rate"
AXES = ("batch_size", RATE)


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel "response": x is the learning rate, series the batch size. Panel "best": x the batch
    size, value the best rate, what "inside" or "edge"; `low` and `high` are the tried rates beside
    it, and n how many were tried."""
    cells = with_fields(inputs.cells, [RATE, "loss.pairs.kind"])
    pool = cells[(cells["loss.kind"] == "softmax") | (cells["loss.pairs.kind"] == "all")]
    several = pool.groupby(["loss.kind", "batch_size"])[RATE].transform("nunique") >= 2
    chosen = most_complete(pool[several], same_fields(pool, AXES), AXES)
    panel = Panel(cells=chosen, axes=AXES, points=())
    if chosen.empty or chosen[RATE].nunique() < 2:
        return points.frame([])
    done = panel.done.assign(series=panel.done["batch_size"], x=panel.done[RATE])
    rows = points.ours(done, "response", inputs.quality)
    best = _best([row for row in rows if row["what"] == "mean"])
    kind = chosen["loss.kind"].iloc[0]
    table = points.frame(
        [*rows, *best] if best else [],
        panels=[panel],
        missing=points.unmeasured(panel, inputs.quality),
        title=f"{kind}; {panels.title(panel).partition('; learning rate')[0]}",
    )
    if not best:
        table.attrs["why"] = "no batch size has cells that ended at two learning rates"
    return table


def draw(df: pd.DataFrame) -> Figure:
    """The response at each batch size; then the best rate tried, edges flagged."""
    with style.context():
        fig, axes = style.figure(
            heights=[2.1, 1.6],
            title="Learning rate by batch size",
            notes=_notes(df),
            footer=df.attrs.get("provenance", ""),
        )
        _response(axes[0], df[df["panel"] == "response"])
        _optimum(axes[1], df[df["panel"] == "best"])
    return fig


def _best(means: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for size in sorted({row["series"] for row in means}):
        mine = sorted((row for row in means if row["series"] == size), key=lambda row: row["x"])
        if len(mine) < 2:
            continue  # its other rates have not ended
        at = max(range(len(mine)), key=lambda i: mine[i]["value"])
        edge = at in (0, len(mine) - 1)
        rows.append(
            {"panel": "best", "source": "ours", "series": size, "x": size, "metric": RATE}
            | {"what": "edge" if edge else "inside", "value": mine[at]["x"], "n": len(mine)}
            | {"low": mine[max(at - 1, 0)]["x"], "high": mine[min(at + 1, len(mine) - 1)]["x"]}
            | {"id": "lowest" if at == 0 else "highest" if edge else ""}
        )
    return rows


def _response(axes: Axes, df: pd.DataFrame) -> None:
    sizes = sorted({int(size) for size in df["series"]})
    for size, look in zip(sizes, style_of(sizes), strict=True):
        mine = df[df["series"].astype(int) == size]
        marks.dots(axes, mine, "x", look, size=3.0)
        marks.bars(axes, marks.means(mine), "x", look)
        marks.line(axes, marks.means(mine), "x", look, label=f"B = {style.short(size)}")
    marks.plain_log(axes, "x")
    axes.set_xlabel("learning rate")
    axes.set_ylabel(label(df["metric"].iloc[0]))
    style.legend(axes)


def _optimum(axes: Axes, df: pd.DataFrame) -> None:
    look = style.STYLES["sigmoid"]
    for what, face in (("inside", look.colour), ("edge", "white")):
        mine = df[df["what"] == what]
        axes.plot(mine["x"].astype(float), mine["value"], linestyle="", marker="o", markersize=5,
                  color=look.colour, markerfacecolor=face)  # fmt: skip
    for _, row in df.iterrows():
        axes.plot([row["x"]] * 2, [row["low"], row["high"]], color=look.colour, linewidth=0.8)
        if row["what"] == "edge":
            up = row["id"] == "highest"
            axes.annotate("edge", (row["x"], row["value"]), fontsize=style.SMALL, ha="center",
                          xytext=(0, 6 if up else -11), textcoords="offset points")  # fmt: skip
    sizes = np.array(sorted(df["x"].astype(float)))
    middle = float(np.exp(np.log(df["value"].astype(float)).mean()))
    root = middle * np.sqrt(sizes / np.exp(np.log(sizes).mean()))
    axes.plot(sizes, root, color="#999999", linestyle=":", linewidth=0.9)
    axes.text(0.98, 0.06, "dotted: slope of sqrt(B)", fontsize=style.SMALL, ha="right",
              color="#777777", transform=axes.transAxes)  # fmt: skip
    axes.margins(y=0.25)
    marks.plain_log(axes)
    axes.set_ylabel("best rate tried")
    style.batch_axis(axes, [int(size) for size in sizes])


def style_of(sizes: list[int]) -> list[style.SeriesStyle]:
    """A look for each batch size, from dark to light as they grow."""
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, max(len(sizes), 1)))
    markers = "osD^vPX*<>"
    return [
        style.SeriesStyle(colour=matplotlib.colors.to_hex(shade), marker=markers[i % len(markers)])
        for i, shade in enumerate(shades)
    ]


def _notes(df: pd.DataFrame) -> list[str]:
    best = df[df["panel"] == "best"]
    edge = [style.short(int(size)) for size in best.loc[best["what"] == "edge", "x"]]
    lines = [f"{df.attrs['title']}."] if df.attrs.get("title") else []
    lines.append("Bars below: from the tried rate beneath the best one to the one above it.")
    if edge:
        lines.append(
            f"On the edge of what was tried at B = {', '.join(edge)}: the best rate is there or "
            "beyond, so batch sizes are not compared at their best."
        )
    return [*lines, *missing_note(df.attrs.get("missing", []))]


rate_by_batch = Plot("rate_by_batch", data, draw)
