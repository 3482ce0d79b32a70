"""Panels with our numbers and the paper's: in one pair of axes where both are on one benchmark.

Ours are solid, the paper's hollow. Where ours are measured on something else (glyphs, say), their
values cannot share an axis with the paper's: the paper's panels stand below or beside ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from analysis.figures.plot import layout, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.style import SeriesStyle
from analysis.select.benchmarks import benchmark
from analysis.stats.intervals import ASSUMPTION


@dataclass(frozen=True, kw_only=True)
class PanelSpec:
    """One panel of the paper.

    name: its value in the column `panel`.
    label: of the y axis, for the paper's numbers.
    axis: draws the x axis, given the values on it.
    curves: draw lines along runs, without a mark at each point.
    """

    name: str
    title: str
    label: str
    axis: Callable[[Axes, Sequence[Any]], None] = style.batch_axis
    log: bool = False
    curves: bool = False


def draw_panels(
    df: pd.DataFrame,
    specs: Sequence[PanelSpec],
    styles: Mapping[str, SeriesStyle],
    *,
    title: str,
    caption: Sequence[str] = (),
    height: float = 1.75,
) -> StudyFigure:
    """The panels that have rows, side by side on a wide page, under one legend.

    With cells, a panel that has none of them is left out: it would show the paper's numbers alone.

    Args:
      df: a table of `points`.
      styles: by series, in the order of the legend.
    """
    drawn = df[df["source"] == "ours"] if (df["source"] == "ours").any() else df
    specs = [spec for spec in specs if (drawn["panel"] == spec.name).any()]
    df = df[df["panel"].isin([spec.name for spec in specs])]
    rows, apart = _split_sources(df, specs)
    columns = [len(row) for row in rows]
    if len(specs) == 1:
        columns = [len(rows)]
    elif not apart:
        columns = layout.arrange(len(specs), wide=3)
    fig, every = layout.make_figure(
        df,
        title=title,
        caption=[*caption, *_caption(df, curves=any(spec.curves for spec in specs))],
        columns=columns,
        heights=height,
        legend=_legend(df, styles, apart=apart),
    )
    for axes, (spec, part) in zip(every, [panel for row in rows for panel in row], strict=True):
        _draw_panel(axes, part, spec, styles, apart=apart)
    return fig


def _caption(df: pd.DataFrame, *, curves: bool) -> list[str]:
    ours = df[(df["source"] == "ours") & (df["kind"] == "seed")]
    if not len(ours):
        return ["All numbers are the paper's."] if len(df) else []
    seeds = ours["seed"].nunique()
    marks = "Thin lines" if curves else "Small marks"
    words = f"{marks}: {seeds} seeds." if seeds > 1 else "One seed."
    if df[df["source"] == "ours"]["low"].notna().any():
        words += f" Bars: 95 % interval of the mean, {ASSUMPTION}."
    if (df["source"] == "paper").any():
        words += " Hollow marks: the paper's numbers."
    return [words]


def _split_sources(
    df: pd.DataFrame, specs: Sequence[PanelSpec]
) -> tuple[list[list[tuple[PanelSpec, pd.DataFrame]]], bool]:
    """Rows of panels with their tables, and whether ours and the paper's have panels apart.

    They have where one of ours measures something that the paper does not.
    """
    ours = df[df["source"] == "ours"]
    both = {"ours", "paper"} <= set(df["source"])
    apart = both and any(benchmark(metric) is None for metric in ours["metric"].unique())
    tables = [ours, df[df["source"] == "paper"]] if apart else [df]
    rows = [
        [(spec, mine) for spec in specs if len(mine := table[table["panel"] == spec.name])]
        for table in tables
    ]
    return rows, apart


def _legend(df: pd.DataFrame, styles: Mapping[str, SeriesStyle], *, apart: bool) -> list[Line2D]:
    sources = set(df["source"])
    hollow: dict[str, Any] = {"markerfacecolor": "white"}
    present = df.groupby("series")["source"].agg(set).to_dict()
    handles = [
        look.handle(name, **(hollow if present[name] == {"paper"} else {}))
        for name, look in styles.items()
        if name in present
    ]
    if sources == {"paper", "ours"} and not apart:
        grey = SeriesStyle(colour="#555555", marker="o", line="")
        handles.append(grey.handle("ours", markersize=4.5))
        handles.append(grey.handle("the paper's", markersize=4.5, **hollow))
    return handles


def _draw_panel(
    axes: Axes,
    df: pd.DataFrame,
    spec: PanelSpec,
    styles: Mapping[str, SeriesStyle],
    *,
    apart: bool,
) -> None:
    ours, theirs = df[df["source"] == "ours"], df[df["source"] == "paper"]
    for name, look in styles.items():
        draw_ours = _draw_runs if spec.curves else _draw_means
        draw_ours(axes, ours[ours["series"] == name], look)
        _draw_hollow(axes, theirs[theirs["series"] == name], look)
    axes.margins(x=0.05, y=0.1)
    if spec.log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        subs = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)
        few = MaxNLocator(4) if high < 10 * low else LogLocator(subs=subs)
        axes.yaxis.set_major_locator(few)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    spec.axis(axes, sorted(df["x"].unique()))
    whose = f"{'ours' if len(ours) else 'the paper'}" if apart else ""
    between = ": " if style.current_page().wide else "\n"
    axes.set_title(between.join(part for part in (spec.title, whose) if part), loc="left")
    metrics = [metric for metric in ours["metric"].unique() if metric.startswith("eval/")]
    as_in_paper = len(theirs) or not metrics or benchmark(metrics[0])
    axes.set_ylabel(spec.label if as_in_paper else style.metric_label(metrics[0]))


def _draw_means(axes: Axes, df: pd.DataFrame, look: SeriesStyle) -> None:
    means = style.means(df).sort_values("x")
    style.dots(axes, df, look, size=2.0)
    style.bars(axes, means, look)
    style.line(axes, means, look, marker=look.marker, markersize=4.0, zorder=3)


def _draw_runs(axes: Axes, df: pd.DataFrame, look: SeriesStyle) -> None:
    """A thin line for each seed and a thick one for their mean."""
    for _, run in df[df["kind"] == "seed"].groupby("id", sort=True):
        style.line(axes, run.sort_values("x"), look, linewidth=0.5, linestyle="-", alpha=0.5)
    means = style.means(df).sort_values("x")
    # A few marks, so that the lines differ without colour.
    some = {"marker": look.marker, "markersize": 3.5, "markevery": max(1, len(means) // 6)}
    style.line(axes, means, look, linewidth=1.4, **some)


def _draw_hollow(axes: Axes, df: pd.DataFrame, look: SeriesStyle) -> None:
    hollow: dict[str, Any] = {"marker": look.marker, "markerfacecolor": "white"}
    style.line(axes, df.sort_values("x"), look, zorder=2.5, linewidth=0.8, markersize=4.5, **hollow)
