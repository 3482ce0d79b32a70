"""Quality by examples per step and pairs per example, which only the sigmoid loss can vary apart.

Cells: see `analysis.select.pairs_map`. One panel for each initial bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.select import pairs_map as selection
from analysis.select import panels


def data(inputs: Inputs) -> pd.DataFrame:
    """x is the batch size, series the pairs per example (group size), panel the initial bias."""
    maps = inputs.select(selection.by_start)
    rows, missing = [], []
    for start, panel in maps.items():
        done = panel.done.assign(series=panel.done[selection.GROUP], x=panel.done["batch_size"])
        rows += points.our_points(done, _panel_name(start), inputs.quality)
        missing += points.without_metric(panel, inputs.quality)
    title = panels.title(next(iter(maps.values()))) if maps else ""
    return points.make_table(rows, panels=list(maps.values()), missing=missing, title=title)


@style.styled
def draw(df: pd.DataFrame) -> Figure:
    """Means as numbers and colours, iso-quality contours, dotted lines of equal pairs per step."""
    means = style.means(df)
    colours = Normalize(means["value"].min(), means["value"].max())
    names = list(dict.fromkeys(means["panel"]))
    words = (
        f"Numbers: means over {points.count_seeds(df)}. Full lines: equal quality, interpolated "
        "between the points in logarithms. Dotted: equal pairs per step, each line four times the "
        "one below. All cells see the same number of examples. A small group also changes the "
        "prior odds of a pair, and with them what b = -10 means."
    )
    fig, every = layout.make_figure(
        heights=[2.6] * len(names),
        title="Examples per step against pairs per example",
        caption=layout.caption_of(df, words),
        footer=df.attrs.get("provenance", ""),
    )
    for axes, name in zip(every, names, strict=True):
        marks = _draw_map(axes, means[means["panel"] == name], colours)
        axes.set_title(name, fontsize=style.SMALL)
    every[-1].set_xlabel("pairs per example (group size g; g = B is the whole batch)")
    bar = fig.colorbar(marks, ax=every, pad=0.02, aspect=30 * len(names))
    label = style.metric_label(means["metric"].iloc[0]).replace("\n", " ")
    bar.set_label(label, fontsize=style.SMALL)
    return fig


def _draw_map(axes: Axes, means: pd.DataFrame, colours: Normalize) -> Any:
    """Draws one panel and returns its coloured marks."""
    x, y = means["series"].astype(float).to_numpy(), means["x"].astype(float).to_numpy()
    value = means["value"].to_numpy(float)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    _draw_contours(axes, x, y, value)
    marks = axes.scatter(
        x, y, c=value, cmap="cividis", norm=colours, s=60, zorder=3, edgecolors="white"
    )
    for at_x, at_y, quality in zip(x, y, value, strict=True):
        axes.annotate(f"{quality:.1f}", (at_x, at_y), fontsize=style.SMALL, zorder=4,
                      xytext=(0, 6), textcoords="offset points", ha="center",
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})  # fmt: skip
    ends = np.array([x.min() / 1.8, x.max() * 1.8])
    for pairs in 2.0 ** np.arange(np.log2((x * y).min()), np.log2((x * y).max()) + 1, 2):
        axes.plot(ends, pairs / ends, color="#bbbbbb", linewidth=0.6, linestyle=":", zorder=1)
    for axis, levels in ((axes.xaxis, x), (axes.yaxis, y)):
        ticks = sorted(set(levels))
        axis.set_ticks(ticks, [style.format_size(tick) for tick in ticks])
    axes.set_xlim(*ends)
    axes.set_ylim(y.min() / 1.8, y.max() * 2.0)
    axes.set_ylabel("examples per step B")
    return marks


def _draw_contours(axes: Axes, x: np.ndarray, y: np.ndarray, value: np.ndarray) -> None:
    log_Nx2 = np.log2(np.column_stack([x, y]))
    if len(x) < 4 or np.linalg.matrix_rank(log_Nx2 - log_Nx2[0]) < 2:
        return  # the points are on one line
    triangles = Triangulation(*log_Nx2.T)
    triangles.x, triangles.y = 2**triangles.x, 2**triangles.y
    contours = axes.tricontour(triangles, value, levels=6, colors=style.GREY, linewidths=0.8)
    # Label each level where its lines are furthest from all points, in doublings.
    places = []
    for lines in contours.allsegs:
        segments = [np.log2(line) for line in lines if len(line) > 1]
        if not segments:
            continue
        share_S = np.linspace(0, 1, 9)[:, None, None]
        along = [line[:-1] * (1 - share_S) + line[1:] * share_S for line in segments]
        place_Px2 = np.concatenate([place.reshape(-1, 2) for place in along])
        distance_P = np.linalg.norm(place_Px2[:, None] - log_Nx2, axis=-1).min(1)
        if distance_P.max() > 0.5:
            places.append(2 ** place_Px2[distance_P.argmax()])
    axes.clabel(contours, fontsize=style.SMALL, fmt="%.3g", manual=places)


def _panel_name(start: Any) -> str:
    if isinstance(start, str):
        return "b starts at the log odds of a pair in its group"
    return "b starts at its default" if start is None else f"b starts at {start:g}"


pairs_map = Plot("pairs_map", data, draw)
