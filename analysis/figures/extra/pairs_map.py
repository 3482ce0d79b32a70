"""Quality by examples per step and pairs per example, which only the sigmoid loss can vary apart.

Cells: see `analysis.select.pairs_map`. One panel for each initial bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.select import pairs_map as selection
from analysis.select import panels


def data(inputs: Inputs) -> pd.DataFrame:
    """x is the batch size, series the pairs per example (group size), panel the initial bias.

    Rows of kind "steps" hold the optimizer steps at each batch size.
    """
    maps = inputs.select(selection.by_start)
    rows, missing = [], []
    for start, panel in maps.items():
        done = panel.done.assign(series=panel.done[selection.GROUP], x=panel.done["batch_size"])
        name = _panel_name(start)
        rows += points.our_points(done, name, inputs.quality, inputs.read_items)
        steps = done.groupby("x")["steps"].median()
        common = {"panel": name, "source": "ours", "kind": "steps"}
        rows += [common | {"x": size, "value": count} for size, count in steps.items()]
        missing += points.without_metric(panel, inputs.quality)
    title = panels.title(next(iter(maps.values()))) if maps else ""
    return points.make_table(rows, panels=list(maps.values()), missing=missing, title=title)


def draw(df: pd.DataFrame) -> StudyFigure:
    """A tile for each point with its mean; the optimizer steps of each row on the right."""
    means = style.means(df)
    colours = Normalize(means["value"].min(), means["value"].max())
    names = list(dict.fromkeys(means["panel"]))
    half = ((means["high"] - means["low"]) / 2).median()
    words = (
        f"Numbers: means over {points.count_seeds(df)}"
        + (f", 95 % interval \N{PLUS-MINUS SIGN} {half:.1f} (median)" if half == half else "")
        + ". Each row sees the same examples in the number of steps on its right; g = B is the "
        "whole batch. A small group also changes the prior odds of a pair, and with them what an "
        "initial bias of -10 means."
    )
    columns = layout.arrange(len(names), wide=2)
    quality = style.metric_label(means["metric"].iloc[0]).replace("\n", " ")
    fig, every = layout.make_figure(
        df,
        title="Examples per step against pairs per example",
        caption=[f"{quality[0].upper()}{quality[1:]}.", words],
        columns=columns,
        heights=2.0,
    )
    for axes, name in zip(every, names, strict=True):
        _draw_tiles(axes, means[means["panel"] == name], colours)
        steps = df[(df["panel"] == name) & (df["kind"] == "steps")]
        _draw_steps(axes, dict(zip(steps["x"], steps["value"], strict=True)))
        axes.set_title(name.replace("-", "\N{MINUS SIGN}"), loc="left")
    layout.hide_inner_labels(every, columns)
    return fig


def _draw_tiles(axes: Axes, means: pd.DataFrame, colours: Normalize) -> None:
    table = means.assign(series=means["series"].astype(float)).pivot(
        index="x", columns="series", values="value"
    )
    image = axes.imshow(
        table.to_numpy(float), cmap="viridis", norm=colours, aspect="auto", origin="lower"
    )
    for (row, column), value in np.ndenumerate(table.to_numpy(float)):
        if np.isfinite(value):
            red, green, blue, _ = image.to_rgba(value)
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            words: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": style.BODY - 0.5}
            axes.text(column, row, f"{value:.1f}", color="white" if dark else "black", **words)
    axes.set_xticks(range(len(table.columns)), [style.format_size(g) for g in table.columns])
    axes.set_yticks(range(len(table.index)), [style.format_size(size) for size in table.index])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("pairs per example (group size g)")
    axes.set_ylabel("examples per step B")


def _draw_steps(axes: Axes, steps: dict[float, float]) -> None:
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(steps)), [f"{steps[size]:,.0f}" for size in sorted(steps)])
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    right.set_ylabel("steps")


def _panel_name(start: Any) -> str:
    if isinstance(start, str):
        return "b starts at the log odds of a pair in its group"
    return "b starts at its default" if start is None else f"b starts at {start:g}"


pairs_map = Plot("pairs_map", data, draw)
