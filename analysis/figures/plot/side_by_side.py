"""Panels with our numbers and the paper's: in one pair of axes where both are on one benchmark.

Ours are solid, the paper's hollow. Where ours are measured on something else (glyphs, say), their
values cannot share an axis with the paper's, so the two get axes of their own, side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from analysis.figures.plot import layout, style
from analysis.figures.plot.style import SeriesStyle
from analysis.paper.reference import benchmark
from analysis.stats.intervals import ASSUMPTION


@dataclass(frozen=True, kw_only=True)
class PanelSpec:
    """One panel of the paper.

    name: its value in the column `panel`.
    label: of the y axis, for the paper's numbers.
    axis: draws the x axis, given the values on it.
    note: small print above the panel.
    curves: draw lines along runs, without a mark at each point.
    joined: connect the marks of a series.
    """

    name: str
    title: str
    label: str
    axis: Callable[[Axes, Sequence[Any]], None] = style.batch_axis
    height: float = 1.5
    note: str = ""
    log: bool = False
    curves: bool = False
    joined: bool = True


@style.styled
def draw_panels(
    df: pd.DataFrame,
    specs: Sequence[PanelSpec],
    styles: Mapping[str, SeriesStyle],
    *,
    title: str,
    legend_columns: int = 4,
) -> Figure:
    """The panels that have rows, above one another, under one legend.

    Args:
      df: a table of `points`.
      styles: by series, in the order of the legend.
    """
    specs = [spec for spec in specs if (df["panel"] == spec.name).any()]
    parts = [_split_sources(df[df["panel"] == spec.name]) for spec in specs]
    handles = _legend(df, styles, joined=all(spec.joined for spec in specs))
    fig, (head, *rest) = layout.make_figure(
        heights=[0.02 + 0.16 * -(-len(handles) // legend_columns), *(s.height for s in specs)],
        columns=[1, *map(len, parts)],
        title=title,
        caption=_caption(df),
        footer=df.attrs.get("provenance", ""),
    )
    layout.legend_row(head, handles, legend_columns)
    for spec, tables in zip(specs, parts, strict=True):
        for table in tables:
            _draw_panel(rest.pop(0), table, spec, styles, alone=len(tables) == 1)
    return fig


def _caption(df: pd.DataFrame) -> list[str]:
    ours = df[(df["source"] == "ours") & (df["kind"] == "seed")]
    if not len(ours):
        return layout.caption_of(df, "All marks are the paper's own numbers.", title=False)
    seeds = ours["seed"].nunique()
    dots = f"Small marks: {seeds} seeds." if seeds > 1 else "One seed."
    if df[df["source"] == "ours"]["low"].notna().any():
        dots += f" Bars: 95 % interval of the mean, {ASSUMPTION}."
    title = f"Ours: {df.attrs.get('title') or 'solid marks'}."
    return layout.caption_of(df, title, dots, title=False)


def _split_sources(df: pd.DataFrame) -> list[pd.DataFrame]:
    """One table, or ours and the paper's apart where they measure different things."""
    ours, theirs = df[df["source"] == "ours"], df[df["source"] == "paper"]
    if not len(ours) or not len(theirs):
        return [df]
    same = all(benchmark(metric) is not None for metric in ours["metric"].unique())
    return [df] if same else [ours, theirs]


def _legend(df: pd.DataFrame, styles: Mapping[str, SeriesStyle], *, joined: bool) -> list[Line2D]:
    present, sources = set(df["series"]), set(df["source"])
    hollow: dict[str, Any] = {"markerfacecolor": "white"}
    more = (hollow if sources == {"paper"} else {}) | ({} if joined else {"linestyle": ""})
    handles = [look.handle(name, **more) for name, look in styles.items() if name in present]
    if sources == {"paper", "ours"}:
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
    alone: bool,
) -> None:
    ours, theirs = df[df["source"] == "ours"], df[df["source"] == "paper"]
    for name, look in styles.items():
        draw_ours = _draw_runs if spec.curves else _draw_means
        draw_ours(axes, ours[ours["series"] == name], look, spec.joined)
        _draw_hollow(axes, theirs[theirs["series"] == name], look, spec.joined)
    axes.margins(x=0.04, y=0.1)
    if spec.log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        subs = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)
        few = MaxNLocator(4) if high < 10 * low else LogLocator(subs=subs)
        axes.yaxis.set_major_locator(few)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    values = sorted(df["x"].unique())
    if alone:
        spec.axis(axes, values)
    elif spec.axis is style.batch_axis:
        style.narrow_batch_axis(axes, values)
    else:
        spec.axis(axes, values)
        if axes.get_xscale() == "log":
            style.thin_ticks(axes)
    # Panels side by side have room for one line above each.
    title = spec.title if alone else "the paper's"
    if not alone and len(ours):
        title = f"{spec.title}: ours" if len(spec.title) < 18 else spec.title
    axes.set_title(title, loc="left", fontsize=style.BODY - 0.5)
    if spec.note and alone:
        axes.set_title(spec.note, loc="right", fontsize=style.SMALL, color="#555555")
    metrics = [metric for metric in ours["metric"].unique() if metric.startswith("eval/")]
    as_in_paper = len(theirs) or not metrics or benchmark(metrics[0])
    axes.set_ylabel(spec.label if as_in_paper else style.metric_label(metrics[0]))


def _draw_means(axes: Axes, df: pd.DataFrame, look: SeriesStyle, joined: bool) -> None:
    means = style.means(df).sort_values("x")
    more: dict[str, Any] = {} if joined else {"linestyle": ""}
    style.dots(axes, df, look, size=2.0)
    style.bars(axes, means, look)
    size = 4.5 if joined else 3.2
    style.line(axes, means, look, marker=look.marker, markersize=size, zorder=3, **more)


def _draw_runs(axes: Axes, df: pd.DataFrame, look: SeriesStyle, joined: bool) -> None:
    """A thin line for each seed and a thick one for their mean."""
    del joined
    for _, run in df[df["kind"] == "seed"].groupby("id", sort=True):
        style.line(axes, run.sort_values("x"), look, linewidth=0.5, linestyle="-", alpha=0.5)
    means = style.means(df).sort_values("x")
    # A few marks, so that the lines differ without colour.
    some = {"marker": look.marker, "markersize": 3.5, "markevery": max(1, len(means) // 6)}
    style.line(axes, means, look, linewidth=1.4, **some)


def _draw_hollow(axes: Axes, df: pd.DataFrame, look: SeriesStyle, joined: bool) -> None:
    more: dict[str, Any] = {"marker": look.marker, "markerfacecolor": "white"}
    if joined:
        more |= {"linewidth": 0.7, "markersize": 5.0}
    else:
        more |= {"linestyle": "", "markersize": 3.2, "markeredgewidth": 0.8}
    style.line(axes, df.sort_values("x"), look, zorder=2.5, **more)
