"""All verdicts on the claims: each estimate with its interval, beside zero.

Cells: those of each claim, see `analysis.claims`. Units differ, so every estimate is drawn in half
widths of its own 95 % interval: one that excludes zero ends beyond it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import NullLocator, StrMethodFormatter

from analysis.claims import OURS, format_number
from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import SeriesStyle
from analysis.figures.plot.ticks import FittingLocator
from analysis.select.panels import Panel

LOOKS = {
    "reproduced": SeriesStyle(colour=style.GREEN, marker="o"),
    "contradicted": SeriesStyle(colour=style.WINE, marker="X"),
    "undecided": SeriesStyle(colour="#777777", marker="D"),
}
SIZES = "batch size"  # the unit of an estimate that zero means nothing to


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is the section, series the verdict, x the claim; metric is the unit."""
    rows: list[Row] = [
        {"panel": one.section, "source": "ours", "series": one.verdict, "kind": "mean"}
        | {"x": one.name, "value": one.estimate, "low": one.low, "high": one.high}
        | {"n": one.cells, "metric": one.unit}
        for one in (inputs.verdicts if len(inputs.cells) else [])
        if one.verdict in LOOKS
    ]
    used = [Panel(cells=inputs.cells, axes=())] if rows else []
    why = "no claim can be tested on its cells" if len(inputs.cells) else ""
    table = points.make_table(rows, panels=used, why=why)
    table.attrs["missing"] = []  # each verdict says what it lacks
    return table


def draw(df: pd.DataFrame) -> StudyFigure:
    """A row for each claim, the paper's by section and then our own."""
    df = df.reset_index(drop=True)
    half = (df["high"] - df["low"]).astype(float) / 2
    scaled = (df["value"].astype(float) / half).where((half > 0) & (df["metric"] != SIZES))
    present = {name: look for name, look in LOOKS.items() if (df["series"] == name).any()}
    counts = df["series"].value_counts()
    fig, (axes,) = layout.make_figure(
        df,
        title="Verdicts on the claims",
        caption=[
            "Estimates in half widths of their own 95 % intervals, so that units do not mix: where "
            "a bar excludes zero, so does the interval. Sections are the paper's; ours are claims "
            "on what it does not vary. A verdict may rest on several conditions. A batch size has "
            "no mark: zero means nothing to it."
        ],
        heights=0.45 + 0.145 * len(df),
        legend=[
            look.handle(f"{name} ({counts[name]})", linestyle="", **_face(name))
            for name, look in present.items()
        ],
    )
    places = -np.arange(len(df))
    axes.axvline(0, color="black", linewidth=0.8)
    for name, look in present.items():
        mine = (df["series"] == name) & scaled.notna()
        bars: dict[str, Any] = {"fmt": "none", "ecolor": look.colour, "elinewidth": 1.0}
        axes.errorbar(scaled[mine], places[mine], xerr=1, **bars)
        marks: dict[str, Any] = {"color": look.colour, "marker": look.marker, "markersize": 4.5}
        axes.plot(scaled[mine], places[mine], linestyle="", **marks | _face(name))
    axes.set_xscale("symlog", linthresh=2, linscale=0.8)
    left, right = (max(3.0, 1.4 * float((sign * scaled).max())) for sign in (-1, 1))
    wide = style.current_page().wide
    powers = [float(t) for t in (1, 3, 10, 30, 100, 300)]
    ticks = [0.0, *(t for t in powers if t < right), *(-t for t in powers if t < left)]
    few = [t for t in ticks if math.log10(abs(t) or 1).is_integer()]
    axes.set_xlim(-left, right)
    axes.xaxis.set_major_locator(
        FittingLocator([(ticks, ()), (few, ())], "\N{MINUS SIGN}{:g}".format)
    )
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"estimate / half width{' of its 95 % interval' if wide else ''}")
    small = style.SMALL if len(df) < 24 or style.current_page().height is None else 5.5
    axes.set_yticks(places, [_label(row) for _, row in df.iterrows()], fontsize=small)
    axes.set_ylim(-len(df) + 0.4, 0.6)
    axes.tick_params(axis="y", length=0)
    for change in np.flatnonzero(df["panel"].ne(df["panel"].shift()))[1:]:
        axes.axhline(0.5 - change, color="#cccccc", linewidth=0.6)
    if wide:
        numbers = axes.secondary_yaxis("right")
        numbers.set_yticks(places, [_numbers(row) for _, row in df.iterrows()], fontsize=small)
        numbers.tick_params(length=0)
        numbers.spines[:].set_visible(False)
    return fig


def _face(verdict: str) -> dict[str, Any]:
    return {"markerfacecolor": "white"} if verdict == "undecided" else {}


def _label(row: pd.Series) -> str:
    section = f"({OURS})" if row["panel"] == OURS else row["panel"]
    return f"{row['x']}  {section}".replace("= -", "= \N{MINUS SIGN}")


def _numbers(row: pd.Series) -> str:
    """The estimate and its interval with as many decimals, two digits of the half width."""
    value, low, high = (float(row[column]) for column in ("value", "low", "high"))
    if math.isnan(value):
        return "no estimate"
    words = format_number(value)
    if high > low:
        decimals = max(0, 1 - math.floor(math.log10((high - low) / 2)))
        decimals = 0 if row["metric"] == SIZES else min(decimals, 3)
        words = f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"
    return f"{words} {row['metric']}".replace("-", "\N{MINUS SIGN}")


verdicts = Plot("verdicts", data, draw)
