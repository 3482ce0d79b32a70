"""The look of every figure: colours, marks, axes and number formats.

Series differ in colour, marker and line, and their colours differ in lightness, so that figures
read in grey and by the colour-blind. Our points are filled, the paper's are hollow. The functions
that draw marks take the table of `analysis.figures.plot.points`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

WIDTH, DPI = 3.5, 200  # inches: one column
BODY, SMALL = 7.5, 6.0  # points
GREY = "#777777"

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": BODY,
    "axes.labelsize": BODY,
    "axes.titlesize": BODY,
    "xtick.labelsize": BODY - 0.5,
    "ytick.labelsize": BODY - 0.5,
    "legend.fontsize": BODY - 0.5,
    "legend.frameon": False,
    "legend.handlelength": 1.9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.visible": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "study",
    "savefig.dpi": DPI,
    "figure.facecolor": "white",
}


@dataclass(frozen=True, kw_only=True)
class SeriesStyle:
    colour: str
    marker: str
    line: Any = "-"

    def handle(self, label: str, **more: Any) -> Line2D:
        """An entry of a legend."""
        look = {"color": self.colour, "marker": self.marker, "linestyle": self.line}
        return Line2D([], [], label=label, **look | more)


DASHED, DOTTED, DASH_DOT = (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2))
LOSSES = ("sigmoid", "softmax")
STYLES: Mapping[str, SeriesStyle] = {
    "sigmoid": SeriesStyle(colour="#0b3c7d", marker="o"),
    "softmax": SeriesStyle(colour="#e08a00", marker="s", line=DASHED),
    "difference": SeriesStyle(colour="#333333", marker="D"),
    "all": SeriesStyle(colour="#111111", marker="*"),
    "random": SeriesStyle(colour="#cf5318", marker="s", line=DASHED),
    "hard": SeriesStyle(colour="#0b3c7d", marker="o"),
    "easy": SeriesStyle(colour="#6fb7e0", marker="^", line=DOTTED),
    "hard, matched pairs": SeriesStyle(colour="#8a8a8a", marker="D", line=DASH_DOT),
    "sigmoid, small batch": SeriesStyle(colour="#6fb7e0", marker="^", line=DOTTED),
    "softmax, small batch": SeriesStyle(colour="#8c5200", marker="v", line=DASH_DOT),
}
# Series in an order (batch sizes, values of a setting): from dark to light, each its own marker.
ORDERED_STYLES: Sequence[SeriesStyle] = (
    SeriesStyle(colour="#00204d", marker="o"),
    SeriesStyle(colour="#3f4c6b", marker="s", line=DASHED),
    SeriesStyle(colour="#7c7b78", marker="^", line=DOTTED),
    SeriesStyle(colour="#a8a06c", marker="D", line=DASH_DOT),
    SeriesStyle(colour="#d9c74f", marker="v", line=(0, (3, 1, 1, 1, 1, 1))),
    SeriesStyle(colour="#cf5318", marker="P", line=(0, (6, 2))),
)


def batch_size_styles(sizes: Sequence[int]) -> dict[int, SeriesStyle]:
    """A style for each batch size, from dark to light as they grow."""
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.88, max(len(sizes), 1)))
    markers = "osD^vPX*<>"
    return {
        size: SeriesStyle(colour=mpl.colors.to_hex(shades[i]), marker=markers[i % len(markers)])
        for i, size in enumerate(sizes)
    }


def context() -> AbstractContextManager[None]:
    """The style while a figure is drawn, whatever the reader's own settings are."""
    return matplotlib.style.context(["default", RC])


Draw = TypeVar("Draw", bound=Callable[..., Figure])


def styled(draw: Draw) -> Draw:
    """Runs a function that draws a figure in `context`."""

    @functools.wraps(draw)
    def in_context(*args: Any, **more: Any) -> Figure:
        with context():
            return draw(*args, **more)

    return in_context  # type: ignore[return-value]


# --- numbers --------------------------------------------------------------------------------------


def format_size(number: float) -> str:
    """A batch size in powers of two: 4096 as 4k, 1048576 as 1M, 307200 as 300k."""
    number = int(number)
    for unit, size in (("M", 2**20), ("k", 2**10)):
        if number >= size and number % size == 0:
            return f"{number // size}{unit}"
    return str(number)


def parse_size(label: str) -> int:
    """The batch size that `format_size` wrote."""
    return int(label.rstrip("kM")) * {"k": 2**10, "M": 2**20}.get(label[-1:], 1)


def format_count(number: float) -> str:
    """A number of examples: 450000000 as 450M, 3e9 as 3B, 300000 as 300k."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:  # what is rounded up to it has its unit too
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


# --- axes -----------------------------------------------------------------------------------------


def batch_axis(axes: Axes, sizes: Sequence[float]) -> None:
    """A logarithmic axis of batch sizes, with at most nine ticks, each at a size that is drawn."""
    axes.set_xscale("log", base=2)
    ticks = sizes[:: max(1, -(-len(sizes) // 9))]
    axes.set_xticks(ticks, [format_size(size) for size in ticks])
    axes.set_xlabel("batch size B (examples per step)")
    if len(sizes) == 1:
        axes.set_xlim(sizes[0] / 2, sizes[0] * 2)


def narrow_batch_axis(axes: Axes, sizes: Sequence[float]) -> None:
    """As `batch_axis`, in half a column: a short label, and only the ticks that have room."""
    batch_axis(axes, sizes)
    axes.set_xlabel("batch size")
    thin_ticks(axes)


def thin_ticks(axes: Axes) -> None:
    """Keeps the ticks of a logarithmic x axis that have room for a label in half a column."""
    low, high = axes.get_xlim()
    gap = max(math.log2(high / low) / 5, 1e-9)
    labels = [text.get_text() for text in axes.get_xticklabels()]
    kept: dict[float, str] = {}
    for tick, label in sorted(zip(axes.get_xticks(), labels, strict=True)):
        inside = low <= tick <= high
        if inside and (not kept or math.log2(tick / list(kept)[-1]) >= gap):
            kept[tick] = label
    axes.set_xticks(list(kept), list(kept.values()))


def examples_axis(axes: Axes, counts: Sequence[float], *, log: bool = True) -> None:
    """An axis of examples seen, with at most seven ticks, each at one of these counts."""
    if log:
        axes.set_xscale("log")
        axes.minorticks_off()
    ticks = list(counts[:: max(1, -(-len(counts) // 7))])
    axes.set_xticks(ticks, [format_count(count) for count in ticks])
    axes.set_xlabel("examples seen")
    if len(counts) == 1:
        axes.set_xlim(counts[0] / 2, counts[0] * 2)


def plain_log(axes: Axes, axis: str = "y") -> None:
    """A logarithmic axis with ticks at 1, 2 and 5 written as plain numbers: 20, 60k."""
    getattr(axes, f"set_{axis}scale")("log")
    one = getattr(axes, f"{axis}axis")
    low, high = sorted(one.get_view_interval())
    wide = high / max(low, 1e-300) > 100
    one.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=6))
    one.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
    one.set_minor_formatter(NullFormatter())


def metric_label(metric: str) -> str:
    """An axis label for a metric key."""
    kind, _, rest = metric.removeprefix("eval/").partition("/")
    split, _, measure = rest.partition("/")
    if kind == "zero_shot":
        return f"zero-shot top-1 (%)\non {split}"
    split, measure = (f"{split} {measure.rpartition('/')[0]}".rstrip(), measure.rpartition("/")[2])
    return f"{kind} {measure}\non {split}".replace("_", " ") if measure else metric


# --- marks ----------------------------------------------------------------------------------------


def means(df: pd.DataFrame) -> pd.DataFrame:
    return df[df["kind"] == "mean"]


def dots(axes: Axes, df: pd.DataFrame, look: SeriesStyle, *, size: float = 2.6) -> None:
    """One small dot per cell (rows of kind "seed")."""
    seeds = df[df["kind"] == "seed"]
    axes.plot(
        seeds["x"].tolist(),
        seeds["value"].tolist(),
        linestyle="",
        marker=look.marker,
        markersize=size,
        markeredgewidth=0.3 if size > 3 else 0,
        markeredgecolor="white",
        color=look.colour,
        zorder=4,
    )


def line(axes: Axes, df: pd.DataFrame, look: SeriesStyle, **more: Any) -> None:
    """A line through the rows in their order."""
    line_style: dict[str, Any] = {"color": look.colour, "linestyle": look.line}
    axes.plot(df["x"].tolist(), df["value"].tolist(), **line_style | more)


def bars(axes: Axes, df: pd.DataFrame, look: SeriesStyle) -> None:
    """The intervals as error bars."""
    known = df[df["low"].notna()]
    axes.errorbar(
        known["x"].tolist(),
        known["value"].tolist(),
        (known["high"] - known["value"]).tolist(),
        fmt="none",
        ecolor=look.colour,
        elinewidth=0.9,
        capsize=2.2,
    )


def band(axes: Axes, df: pd.DataFrame, look: SeriesStyle) -> None:
    """The intervals as a band."""
    known = df[df["low"].notna()]
    ends = (known[column].to_numpy(float) for column in ("x", "low", "high"))
    axes.fill_between(*ends, color=look.colour, alpha=0.16, linewidth=0)
