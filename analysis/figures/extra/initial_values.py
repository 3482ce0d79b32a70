"""Quality by batch size for each initial bias and temperature.

Cells: see `analysis.select.initial_values`.
"""

from __future__ import annotations

import itertools

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import marks, points, style
from analysis.figures.plot.quality import between, label, missing_note
from analysis.select import initial_values as starts
from analysis.select import panels
from analysis.select.fields import row_keys


def data(inputs: Inputs) -> pd.DataFrame:
    """x is the batch size, series the start in words."""
    panel = inputs.chosen(starts.by_size)
    if not len(panel.cells):
        return points.frame([])
    done = panel.done
    named = [starts.name(start) for start in row_keys(done, starts.AXES)]
    rows = points.ours(done.assign(series=named, x=done["batch_size"]), "starts", inputs.quality)
    missing = points.unmeasured(panel, inputs.quality)
    return points.frame(rows, panels=[panel], missing=missing, title=panels.title(panel))


def draw(df: pd.DataFrame) -> Figure:
    """A line for each start, seeds as dots, intervals as bars."""
    means = marks.means(df)
    best = means.groupby("series")["value"].mean().sort_values(ascending=False)
    looks = dict(zip(best.index, itertools.cycle(style.STEPS), strict=False))
    with style.context():
        fig, (head, axes) = style.figure(
            heights=[0.18 * -(-len(best) // 2), 2.6],
            title="Where bias and temperature start",
            notes=_notes(df),
            footer=df.attrs.get("provenance", ""),
        )
        handles = []
        for series, look in looks.items():
            mine = df[df["series"] == series]
            marks.dots(axes, mine, "x", look, size=3.0)
            marks.bars(axes, marks.means(mine), "x", look)
            marks.line(axes, marks.means(mine).sort_values("x"), "x", look)
            handles += axes.plot(
                *([], []), color=look.colour, linestyle=look.line, marker=look.marker, label=series
            )
        style.key(head, handles, 2)
        style.batch_axis(axes, sorted({int(x) for x in means["x"]}))
        axes.set_ylabel(label(means["metric"].iloc[0]))
    return fig


def _notes(df: pd.DataFrame) -> list[str]:
    seeds = df[df["what"] == "seed"].groupby(["series", "x"]).size()
    lines = [
        f"Means over {between(seeds)}, bars: 95 % interval, the variance between seeds pooled over "
        "all. Log odds: of a pair in the batch, -log(B - 1). The best start on the mean is named "
        "first."
    ]
    if df.attrs.get("title"):
        lines.append(f"{df.attrs['title']}.")
    return [*lines, *missing_note(df.attrs.get("missing", []))]


initial_values = Plot("initial_values", data, draw)
