"""Quality by examples per step and pairs per example, which only the sigmoid loss can vary apart.

Cells: see `analysis.select.pairs_map`. One panel for each initial bias, at equal examples, and one
at equal steps where a study has them.
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
from analysis.figures.plot.points import Row
from analysis.select import pairs_map as selection
from analysis.select import panels
from analysis.select.pairs_map import Equal

AT_EQUAL_STEPS = "equal steps, "


def data(inputs: Inputs) -> pd.DataFrame:
    """x is the batch size, series the pairs per example (group size), panel the initial bias and
    what is equal.

    Rows of kind "steps" or "examples" hold those of a run at each batch size, where they differ.
    """
    rows: list[Row] = []
    used, missing = [], []
    arms: tuple[tuple[Equal, str], ...] = (("examples", "steps"), ("steps", "examples"))
    for equal, other in arms:
        for start, panel in inputs.select(selection.by_start, equal=equal).items():
            done = panel.done.assign(series=panel.done[selection.GROUP], x=panel.done["batch_size"])
            name = _panel_name(start, equal)
            rows += points.our_points(done, name, inputs.quality, inputs.read_items)
            common = {"panel": name, "source": "ours", "kind": other}
            by_size = done.groupby("x")[other].median()
            rows += [common | {"x": size, "value": count} for size, count in by_size.items()]
            missing += points.without_metric(panel, inputs.quality)
            used.append(panel)
    title = panels.title(used[0]) if used else ""
    return points.make_table(rows, panels=used, missing=missing, title=title)


def draw(df: pd.DataFrame) -> StudyFigure:
    """A tile for each point with its mean; on the right the steps of each row, or its examples."""
    means = style.means(df)
    colours = Normalize(means["value"].min(), means["value"].max())
    names = list(dict.fromkeys(means["panel"]))
    of_steps = any(name.startswith(AT_EQUAL_STEPS) for name in names)
    half = ((means["high"] - means["low"]) / 2).median()
    words = (
        f"Numbers: means over {points.count_seeds(df)}"
        + (f", 95 % interval \N{PLUS-MINUS SIGN} {half:.1f} (median)" if half == half else "")
        + ". Each row sees the same examples in the number of steps on its right"
        + (", at equal steps the examples on its right" if of_steps else "")
        + "; g = B is the whole batch. A small group also changes the prior odds of a pair, and "
        "with them what an initial bias of -10 means."
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
        for what in ("steps", "examples"):
            rows = df[(df["panel"] == name) & (df["kind"] == what)]
            if len(rows):
                _draw_length(axes, what, dict(zip(rows["x"], rows["value"], strict=True)))
        axes.set_title(name.replace("at -", "at \N{MINUS SIGN}"), loc="left")
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


def _draw_length(axes: Axes, what: str, by_size: dict[float, float]) -> None:
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(by_size)), [f"{by_size[size]:,.0f}" for size in sorted(by_size)])
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    right.set_ylabel(what)


def _panel_name(start: Any, equal: Equal) -> str:
    if isinstance(start, str):
        name = "b starts at the log odds of a pair"
        name += " in its group" if equal == "examples" else ""  # a column has no room for it
    else:
        name = "b starts at its default" if start is None else f"b starts at {start:g}"
    return name if equal == "examples" else f"{AT_EQUAL_STEPS}{name}"


pairs_map = Plot("pairs_map", data, draw)
