"""Quality by batch size for each initial bias and temperature (paper Sec. 4.9).

Cells: see `analysis.select.initial_values`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.style import SeriesStyle
from analysis.select import initial_values as selection
from analysis.select import panels
from analysis.select.fields import row_keys
from analysis.stats.intervals import ASSUMPTION

ALIVE = 0.5  # of the best quality: below it training from these values has failed
BIASES = {
    "b = log odds": ("o", style.GREEN),
    "b = -10": ("s", style.WINE),
    "b = 0": ("^", style.OLIVE),
    "no bias": ("D", style.BLACK),
}


def data(inputs: Inputs) -> pd.DataFrame:
    """x is the batch size, series the initial values in words."""
    panel = inputs.select(selection.by_size)
    if not len(panel.cells):
        return points.make_table([])
    done = panel.done
    series = [selection.name(values) for values in row_keys(done, selection.AXES)]
    done = done.assign(series=series, x=done["batch_size"])
    rows = points.our_points(done, "initial values", inputs.quality, inputs.read_items)
    missing = points.without_metric(panel, inputs.quality)
    return points.make_table(rows, panels=[panel], missing=missing, title=panels.title(panel))


def draw(df: pd.DataFrame) -> StudyFigure:
    """A line for each pair of initial values; on the right those that train at every batch size."""
    means = style.means(df)
    levels = means.pivot(index="series", columns="x", values="value")
    alive = levels.index[(levels > ALIVE * levels.max().max()).all(axis=1)]
    names = levels.mean(axis=1).sort_values(ascending=False).index
    styles = dict(zip(names, _styles(names), strict=True))
    words = (
        f"Means over {points.count_seeds(df)}; bars: 95 % interval, {ASSUMPTION}. Log odds: of a "
        "pair in the batch, -log(B - 1). Solid, filled: t' = log 10; dashed, hollow: other t'."
    )
    zoomed = 1 < len(alive) < len(names)
    columns = layout.arrange(2 if zoomed else 1, wide=2)
    fig, every = layout.make_figure(
        df,
        title="Initial bias and temperature",
        caption=[words],
        columns=columns,
        heights=2.1,
        legend=[_handle(look, name) for name, look in styles.items()],
    )
    titles = ["all", "those that train at every size"] if zoomed else [""]
    for axes, title, shown in zip(every, titles, (names, alive), strict=False):
        axes.set_title(title, loc="left")
        for series in shown:
            mine, look = df[df["series"] == series], styles[series]
            style.bars(axes, style.means(mine), look)
            face = look.colour if look.line == "-" else "white"
            more: dict[str, Any] = {"marker": look.marker, "markerfacecolor": face}
            style.line(axes, style.means(mine).sort_values("x"), look, **more)
        style.batch_axis(axes, sorted({int(x) for x in means["x"]}))
        axes.set_ylabel(style.metric_label(means["metric"].iloc[0]))
    layout.hide_inner_labels(every, columns)
    return fig


def _styles(names: Iterable[str]) -> list[SeriesStyle]:
    """Colour and marker by the bias, whatever else is drawn; the line by the temperature."""
    others = itertools.cycle([("v", style.TEAL), ("P", style.ROSE)])
    by_bias = dict(BIASES)
    looks = []
    for name in names:
        bias, _, temperature = name.partition(", ")
        if bias not in by_bias:
            by_bias[bias] = next(others)
        marker, colour = by_bias[bias]
        line = "-" if temperature == "t' = log 10" else style.DASHED
        looks.append(SeriesStyle(colour=colour, marker=marker, line=line))
    return looks


def _handle(look: SeriesStyle, name: str) -> Line2D:
    face = look.colour if look.line == "-" else "white"
    return look.handle(name.replace("= -", "= \N{MINUS SIGN}"), markerfacecolor=face)


initial_values = Plot("initial_values", data, draw)
