"""The look of every figure: pages, colours, marks, axes and number formats.

Navy is the sigmoid loss and orange the softmax loss, and nothing else has these colours. Series
also differ in marker and line, and their colours in lightness, so that figures read in grey and by
the colour-blind. Our points are filled, the paper's are hollow. The functions that draw marks take
the table of `analysis.figures.plot.points`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.figures.plot.ticks import Choice, FittingLocator, UnlabelledLocator, keep_ends
from analysis.paper.reference import PRINTED_SIZES

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
    "pdf.fonttype": 42,  # fonts are embedded as outlines that a publisher accepts
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "study",
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
NAVY, ORANGE = "#0b3c7d", "#e08a00"  # the two losses and nothing else
BLACK, WINE, GREEN, ROSE, TEAL, OLIVE = (
    *("#111111", "#882255", "#117733", "#cc6677", "#44aa99", "#b8a63c"),
)
STYLES: Mapping[str, SeriesStyle] = {
    "sigmoid": SeriesStyle(colour=NAVY, marker="o"),
    "softmax": SeriesStyle(colour=ORANGE, marker="s", line=DASHED),
    "difference": SeriesStyle(colour="#333333", marker="D"),
    "all": SeriesStyle(colour=BLACK, marker="*"),
    "random": SeriesStyle(colour=ROSE, marker="s", line=DASHED),
    "hard": SeriesStyle(colour=GREEN, marker="o"),
    "easy": SeriesStyle(colour=OLIVE, marker="^", line=DOTTED),
    "hard, matched pairs": SeriesStyle(colour=WINE, marker="D", line=DASH_DOT),
    # Lighter and darker shades of the losses.
    "sigmoid, small batch": SeriesStyle(colour="#6fb7e0", marker="^", line=DOTTED),
    "sigmoid, shifted bias": SeriesStyle(colour="#4d8fcc", marker="D", line=DASH_DOT),
    "sigmoid, t fixed": SeriesStyle(colour="#6fb7e0", marker="D", line=DOTTED),
    "softmax, t fixed": SeriesStyle(colour="#8c5200", marker="^", line=DASH_DOT),
    "softmax, small batch": SeriesStyle(colour="#8c5200", marker="v", line=DASH_DOT),
}
# Series that are no losses, in an order: each with a marker and a line of its own.
ORDERED_STYLES: Sequence[SeriesStyle] = (
    SeriesStyle(colour=BLACK, marker="o"),
    SeriesStyle(colour=WINE, marker="s", line=DASHED),
    SeriesStyle(colour=GREEN, marker="^", line=DOTTED),
    SeriesStyle(colour=ROSE, marker="D", line=DASH_DOT),
    SeriesStyle(colour=TEAL, marker="v", line=(0, (3, 1, 1, 1, 1, 1))),
    SeriesStyle(colour=OLIVE, marker="P", line=(0, (6, 2))),
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


# --- pages ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a figure is drawn for.

    Attributes:
      width: inches.
      height: inches; None lets the figure grow with its panels.
      dpi: of the PNG.
      wide: whether panels stand side by side.
      titled: whether the picture has its title in it.
    """

    width: float
    height: float | None = None
    dpi: int = 200
    wide: bool = True
    titled: bool = True


# Letters are as large in all of them: 7.5 points in print, 16 points on a slide 13.3 inches wide.
PAGES: Mapping[str, Page] = {
    "column": Page(width=3.25, wide=False),
    "text": Page(width=6.75),
    "slide": Page(width=6.0, height=3.375, dpi=320),
}
DEFAULT_WIDTH = "text"
_page: ContextVar[Page] = ContextVar("page", default=PAGES[DEFAULT_WIDTH])


def current_page() -> Page:
    """The page that is being drawn."""
    return _page.get()


@contextlib.contextmanager
def page(width: str = DEFAULT_WIDTH, *, bare: bool = False) -> Iterator[Page]:
    """Draws for one of `PAGES`, whatever the reader's own settings of matplotlib are.

    Args:
      bare: leave the title out of the picture.
    """
    chosen = replace(PAGES[width], titled=not bare)
    token = _page.set(chosen)
    try:
        with context():
            yield chosen
    finally:
        _page.reset(token)


# --- numbers --------------------------------------------------------------------------------------


def format_size(number: float) -> str:
    """A batch size in powers of two: 4096 as 4k, 1048576 as 1M; 98k and 307k as the paper does."""
    number = int(number)
    if number in PRINTED_SIZES:
        return PRINTED_SIZES[number]
    for unit, size in (("M", 2**20), ("k", 2**10)):
        if number >= size and number % size == 0:
            return f"{number // size}{unit}"
    return str(number)


def parse_size(label: str) -> int:
    """The batch size that `format_size` wrote."""
    for size, printed in PRINTED_SIZES.items():
        if label == printed:
            return size
    return int(label.rstrip("kM")) * {"k": 2**10, "M": 2**20}.get(label[-1:], 1)


def format_count(number: float) -> str:
    """A number of examples: 450000000 as 450M, 3e9 as 3B, 300000 as 300k."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:  # what is rounded up to it has its unit too
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


# --- axes -----------------------------------------------------------------------------------------


def batch_axis(axes: Axes, sizes: Iterable[float], *, axis: str = "x") -> None:
    """A logarithmic axis of batch sizes: labels at all of them where there is room, else at powers
    of 4, of 16 or of 64, with small ticks at the others.

    Sizes that are no power of 2 (98k, 307k in the paper) are labelled next to the powers.
    """
    one = getattr(axes, f"{axis}axis")
    sizes = sorted({float(size) for size in sizes})
    getattr(axes, f"set_{axis}scale")("log", base=2)
    if sizes[0] == sizes[-1]:
        getattr(axes, f"set_{axis}lim")(sizes[0] / 2, sizes[0] * 2)
    odd = [size for size in sizes if not math.log2(size).is_integer()]
    choices: list[Choice] = [(sizes, ())]
    for octaves in (2, 4, 6):
        rests = [math.log2(size) % octaves for size in sizes]
        even = [rest for rest in rests if rest % 2 == 0] or [0.0]
        most = max(sorted(set(even)), key=even.count)
        powers = [size for size, rest in zip(sizes, rests, strict=True) if rest == most]
        choices += [(powers, odd)] if len(powers) > 1 else []
    one.set_major_locator(FittingLocator([*choices, *keep_ends(sizes)], format_size))
    one.set_major_formatter(FuncFormatter(lambda size, _: format_size(round(size))))
    one.set_minor_locator(UnlabelledLocator(sizes))
    one.set_minor_formatter(NullFormatter())
    one.set_tick_params(which="minor", length=2, width=0.5)
    one.set_label_text("batch size")


def examples_axis(axes: Axes, counts: Sequence[float], *, log: bool = True) -> None:
    """An axis of examples seen.

    Args:
      log: a logarithmic one with a tick at each of these counts, a few budgets; else a linear one
        with round ticks.
    """
    axes.set_xlabel("examples seen")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: format_count(count)))
    if not log:
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        return
    axes.set_xscale("log")
    counts = sorted(counts)
    axes.xaxis.set_major_locator(FittingLocator(keep_ends(counts), format_count))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: format_count(count)))
    axes.xaxis.set_minor_locator(UnlabelledLocator(counts))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if len(counts) == 1:
        axes.set_xlim(counts[0] / 2, counts[0] * 2)


def plain_log(axes: Axes, axis: str = "y") -> None:
    """A logarithmic axis with ticks at 1, 2 and 5 written as plain numbers: 20, 60k."""
    getattr(axes, f"set_{axis}scale")("log")
    one = getattr(axes, f"{axis}axis")
    low, high = sorted(one.get_view_interval())
    span = high / max(low, 1e-300)
    subs = (1.0,) if span > 100 else (1.0, 2.0, 5.0)
    few = MaxNLocator(4, steps=[1, 2, 5, 10])  # of a short axis, where powers are too far apart
    one.set_major_locator(LogLocator(subs=subs, numticks=6) if span > 8 else few)
    one.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
    one.set_minor_formatter(NullFormatter())


KINDS = {"zero_shot": "zero-shot", "few_shot": "few-shot", "val_loss": "validation loss"}
MEASURES = {
    "top1": "top-1 (%)",
    "image_to_text_r1": "image-to-text R@1 (%)",
    "text_to_image_r1": "text-to-image R@1 (%)",
}


def metric_label(metric: str) -> str:
    """An axis label for a metric key, in two lines: what is measured, and on what."""
    kind, _, rest = metric.removeprefix("eval/").partition("/")
    split, _, measure = rest.rpartition("/")
    if not metric.startswith("eval/") or not measure:
        return metric
    words = MEASURES.get(measure, measure.replace("_", " "))
    if not kind.endswith("retrieval"):
        words = f"{KINDS.get(kind, kind.replace('_', ' '))} {words}"
    return f"{words}\non {split.replace('_', ' ')}"


def is_percent(metric: str) -> bool:
    """Whether a metric lies between 0 and 100."""
    return metric.startswith("eval/") and metric.endswith(("/top1", "_r1"))


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
        [
            (known["value"] - known["low"]).tolist(),
            (known["high"] - known["value"]).tolist(),
        ],
        fmt="none",
        ecolor=look.colour,
        elinewidth=0.9,
        capsize=2.2,
    )


CUT = "Bars that reach the edge of a panel go on beyond it."


def limit_bars(axes: Axes, values: pd.Series) -> None:
    """Lets intervals that are far wider than the spread of these leads run out of the panel.

    With two seeds a t interval is 12.7 standard errors wide, which would flatten all else.
    """
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    room = max(high - low, 1.0)
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, low - room), min(top, high + room))


def band(axes: Axes, df: pd.DataFrame, look: SeriesStyle) -> None:
    """The intervals as a band."""
    known = df[df["low"].notna()]
    ends = (known[column].to_numpy(float) for column in ("x", "low", "high"))
    axes.fill_between(*ends, color=look.colour, alpha=0.16, linewidth=0)
