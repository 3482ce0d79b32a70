"""Panels of ours beside the paper's: in one pair of axes where both are on one benchmark.

Ours are solid, the paper's hollow. Where ours are measured on something else (glyphs, say), their
values cannot share an axis with the paper's: the two stand side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from analysis import paper
from analysis.figures.plot import marks, quality, style
from analysis.figures.plot.style import SeriesStyle
from analysis.stats.intervals import ASSUMPTION


@dataclass(frozen=True, kw_only=True)
class PanelSpec:
    """One panel of the paper.

    name: its value in the column `panel`. label: of the y axis, for the paper's numbers.
    axis: draws the x axis, given the values on it.
    says: what stands above the panel where the paper prints no numbers for it.
    curves: lines along runs, without a mark at each point. lines: whether the marks are joined.
    """

    name: str
    title: str
    label: str
    axis: Callable[[Axes, list[Any]], None] = style.batch_axis
    height: float = 1.5
    says: str = ""
    log: bool = False
    curves: bool = False
    lines: bool = True


def along_runs(spec: PanelSpec, *, axis: Callable[[Axes, list[Any]], None]) -> PanelSpec:
    return replace(spec, axis=axis, curves=True)


def draw(
    df: pd.DataFrame,
    specs: Sequence[PanelSpec],
    looks: Mapping[str, SeriesStyle],
    *,
    title: str,
    notes: Iterable[str] = (),
    legend_columns: int = 4,
) -> Figure:
    """The panels that have any row, above one another, under one legend."""
    shown = [spec for spec in specs if (df["panel"] == spec.name).any()]
    rows = [_parts(df[df["panel"] == spec.name]) for spec in shown]
    series = [name for name in looks if (df["series"] == name).any()]
    lines = -(-(len(series) + 2) // legend_columns)
    with style.context():
        fig, axes = style.figure(
            heights=[0.02 + 0.16 * lines, *(spec.height for spec in shown)],
            columns=[1, *(len(parts) for parts in rows)],
            title=title,
            notes=[*caption(df), *notes],
            footer=df.attrs.get("provenance", ""),
        )
        head, *rest = axes
        style.key(
            head, _handles(df, series, looks, all(spec.lines for spec in shown)), legend_columns
        )
        for spec, parts in zip(shown, rows, strict=True):
            for part in parts:
                _panel(rest.pop(0), part, spec, looks, alone=len(parts) == 1)
    return fig


def caption(df: pd.DataFrame) -> list[str]:
    """What ours are, what their marks mean, what is left out and what is missing."""
    ours = df[(df["source"] == "ours") & (df["what"] == "seed")]
    lines = []
    if len(ours):
        seeds = ours["seed"].nunique()
        lines.append(f"Ours: {df.attrs.get('title') or 'solid marks'}.")
        dots = f"Small marks: {seeds} seeds." if seeds > 1 else "One seed."
        known = df[df["source"] == "ours"]["low"].notna().any()
        lines.append(f"{dots} Bars: 95 % interval of the mean, {ASSUMPTION}." if known else dots)
    elif len(df):
        lines.append("All marks are the paper's own numbers.")
    lines += [f"{note[0].upper()}{note[1:]}." for note in df.attrs.get("notes", ())]
    return lines + quality.missing_note(df.attrs.get("missing", []))


def _parts(df: pd.DataFrame) -> list[pd.DataFrame]:
    """One pair of axes, or ours and the paper's apart where they measure different things."""
    ours, theirs = df[df["source"] == "ours"], df[df["source"] == "paper"]
    if not len(ours) or not len(theirs):
        return [df]
    same = all(paper.benchmark(metric) is not None for metric in ours["metric"].unique())
    return [df] if same else [ours, theirs]


def _handles(
    df: pd.DataFrame, series: list[str], looks: Mapping[str, SeriesStyle], joined: bool
) -> list[Any]:
    sources = set(df["source"])
    face: dict[str, Any] = {"markerfacecolor": "white"} if sources == {"paper"} else {}
    handles = [
        Line2D(
            *([], []),
            color=looks[s].colour,
            marker=looks[s].marker,
            ls=looks[s].line if joined else "",
            label=s,
            **face,
        )
        for s in series
    ]
    if sources == {"paper", "ours"}:
        common: dict[str, Any] = {"color": "#555555", "marker": "o", "ls": "", "markersize": 4.5}
        handles.append(Line2D([], [], **common, label="ours"))
        handles.append(Line2D([], [], **common, markerfacecolor="white", label="the paper's"))
    return handles


def _panel(
    axes: Axes, df: pd.DataFrame, spec: PanelSpec, looks: Mapping[str, SeriesStyle], *, alone: bool
) -> None:
    source = set(df["source"])
    ours, theirs = df[df["source"] == "ours"], df[df["source"] == "paper"]
    for name, look in looks.items():
        if spec.curves:
            _curve(axes, ours[ours["series"] == name], look)
        else:
            _solid(axes, ours[ours["series"] == name], look, spec.lines)
        _hollow(axes, theirs[theirs["series"] == name], look, spec.lines)
    axes.margins(x=0.04, y=0.1)
    if spec.log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        subs = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)
        few = MaxNLocator(4) if high < 10 * low else LogLocator(subs=subs)
        axes.yaxis.set_major_locator(few)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    narrow = not alone and spec.axis is style.batch_axis
    axis = style.narrow_batch_axis if narrow else spec.axis
    axis(axes, sorted(df["x"].unique()))
    if not alone and axes.get_xscale() == "log":
        style.thin(axes)
    # Panels side by side have room for one line above each.
    title = spec.title if alone else {"ours": "ours", "paper": "the paper's"}["".join(source)]
    if not alone and source == {"ours"}:
        title = f"{spec.title}: ours" if len(spec.title) < 18 else spec.title
    axes.set_title(title, loc="left", fontsize=style.BODY - 0.5)
    if spec.says and alone:
        axes.set_title(spec.says, loc="right", fontsize=style.SMALL, color="#555555")
    own = [metric for metric in ours["metric"].unique() if metric.startswith("eval/")]
    known = "paper" in source or not own or paper.benchmark(own[0])
    axes.set_ylabel(spec.label if known else quality.label(own[0]))


def _solid(axes: Axes, df: pd.DataFrame, look: SeriesStyle, joined: bool) -> None:
    means = marks.means(df).sort_values("x")
    more: dict[str, Any] = {} if joined else {"linestyle": ""}
    marks.dots(axes, df, "x", look, size=2.0)
    marks.bars(axes, means, "x", look)
    size = 4.5 if joined else 3.2
    marks.line(axes, means, "x", look, marker=look.marker, markersize=size, zorder=3, **more)


def _curve(axes: Axes, df: pd.DataFrame, look: SeriesStyle) -> None:
    """A thin line for each seed and a thick one for their mean."""
    seeds, means = df[df["what"] == "seed"], marks.means(df)
    for _, run in seeds.groupby("id", sort=True):
        marks.line(axes, run.sort_values("x"), "x", look, linewidth=0.5, linestyle="-", alpha=0.5)
    # A few marks, so that the lines can be told apart without colour.
    some = {"marker": look.marker, "markersize": 3.5, "markevery": max(1, len(means) // 6)}
    marks.line(axes, means.sort_values("x"), "x", look, linewidth=1.4, **some)


def _hollow(axes: Axes, df: pd.DataFrame, look: SeriesStyle, joined: bool) -> None:
    more: dict[str, Any] = {"marker": look.marker, "markerfacecolor": "white"}
    if joined:
        more |= {"linewidth": 0.7, "markersize": 5.0}
    else:
        more |= {"linestyle": "", "markersize": 3.2, "markeredgewidth": 0.8}
    marks.line(axes, df.sort_values("x"), "x", look, zorder=2.5, **more)
