"""Quality by batch size for each initial bias and temperature (paper Sec. 4.9).

Cells: see `analysis.select.initial_values`.
"""

from __future__ import annotations

import itertools

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.select import initial_values as selection
from analysis.select import panels
from analysis.select.fields import row_keys


def data(inputs: Inputs) -> pd.DataFrame:
    """x is the batch size, series the initial values in words."""
    panel = inputs.select(selection.by_size)
    if not len(panel.cells):
        return points.make_table([])
    done = panel.done
    series = [selection.name(values) for values in row_keys(done, selection.AXES)]
    done = done.assign(series=series, x=done["batch_size"])
    rows = points.our_points(done, "initial values", inputs.quality)
    missing = points.without_metric(panel, inputs.quality)
    return points.make_table(rows, panels=[panel], missing=missing, title=panels.title(panel))


@style.styled
def draw(df: pd.DataFrame) -> Figure:
    """A line for each pair of initial values, seeds as dots, intervals as bars."""
    means = style.means(df)
    best = means.groupby("series")["value"].mean().sort_values(ascending=False)
    styles = dict(zip(best.index, itertools.cycle(style.ORDERED_STYLES), strict=False))
    words = (
        f"Means over {points.count_seeds(df)}, bars: 95 % interval, the variance between seeds "
        "pooled over all. Log odds: of a pair in the batch, -log(B - 1). Best on the mean first."
    )
    fig, (head, axes) = layout.make_figure(
        heights=[0.18 * -(-len(best) // 2), 2.6],
        title="Initial bias and temperature",
        caption=layout.caption_of(df, words),
        footer=df.attrs.get("provenance", ""),
    )
    for series, look in styles.items():
        mine = df[df["series"] == series]
        style.dots(axes, mine, look, size=3.0)
        style.bars(axes, style.means(mine), look)
        style.line(axes, style.means(mine).sort_values("x"), look)
    layout.legend_row(head, [look.handle(name) for name, look in styles.items()], 2)
    style.batch_axis(axes, sorted({int(x) for x in means["x"]}))
    axes.set_ylabel(style.metric_label(means["metric"].iloc[0]))
    return fig


initial_values = Plot("initial_values", data, draw)
