"""The marks of every figure: dots for seeds, lines through means, bars and bands for intervals."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.figures.plot import style
from analysis.figures.plot.style import SeriesStyle


def dots(axes: Axes, df: pd.DataFrame, x: str, look: SeriesStyle, *, size: float = 2.6) -> None:
    """One small dot per cell (rows with what = "seed")."""
    seeds = df[df["what"] == "seed"]
    axes.plot(
        seeds[x].tolist(),
        seeds["value"].tolist(),
        linestyle="",
        marker=look.marker,
        markersize=size,
        markeredgewidth=0.3 if size > 3 else 0,
        markeredgecolor="white",
        color=look.colour,
        zorder=4,
    )


def means(df: pd.DataFrame) -> pd.DataFrame:
    return df[df["what"] == "mean"]


def line(axes: Axes, df: pd.DataFrame, x: str, look: SeriesStyle, **more: Any) -> None:
    """Through the rows as they come."""
    style: dict[str, Any] = {"color": look.colour, "linestyle": look.line} | more
    axes.plot(df[x].tolist(), df["value"].tolist(), **style)


def bars(axes: Axes, df: pd.DataFrame, x: str, look: SeriesStyle) -> None:
    """The intervals, where there are any."""
    known = df[df["low"].notna()]
    axes.errorbar(
        known[x].tolist(),
        known["value"].tolist(),
        (known["high"] - known["value"]).tolist(),
        fmt="none",
        ecolor=look.colour,
        elinewidth=0.9,
        capsize=2.2,
    )


def band(axes: Axes, df: pd.DataFrame, x: str, look: SeriesStyle) -> None:
    """The intervals as a band, where there are any."""
    known = df[df["low"].notna()]
    axes.fill_between(
        known[x].to_numpy(float),
        known["low"].to_numpy(float),
        known["high"].to_numpy(float),
        color=look.colour,
        alpha=0.16,
        linewidth=0,
    )


def plain_log(axes: Axes, axis: str = "y") -> None:
    """A logarithmic axis with ticks at 1, 2 and 5 written as plain numbers, as 20 or 60k."""
    getattr(axes, f"set_{axis}scale")("log")
    one = getattr(axes, f"{axis}axis")
    low, high = sorted(one.get_view_interval())
    few = high / max(low, 1e-300) > 100
    one.set_major_locator(LogLocator(subs=(1.0,) if few else (1.0, 2.0, 5.0), numticks=6))
    one.set_major_formatter(FuncFormatter(lambda value, _: style.count(value)))
    one.set_minor_formatter(NullFormatter())
