"""Recall in each language, and how it changes with the batch (paper Sec. 4.3, Fig. 8).

Cells: see `analysis.select.multilingual`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import SeriesStyle
from analysis.select import multilingual
from analysis.select.deciding import FEWEST_STEPS, steps_by_size, too_short
from analysis.select.multilingual import LATIN, SCRIPTS, script_of
from analysis.stats.intervals import ASSUMPTION, GroupMeans, by_group, group_means

RECALL, CHANGE = "recall", "change"
LOOK = SeriesStyle(colour=style.BLACK, marker="o", line="")
LOST = SeriesStyle(colour=style.WINE, marker="v", line="")
GAINED = SeriesStyle(colour=style.GREEN, marker="^", line="")


def data(inputs: Inputs) -> pd.DataFrame:
    """See `points`; x is the language.

    Panel "recall" has the batch size with the best mean; panel "change" one series for each change
    of the batch size: that between the smallest and the largest size that may decide a claim, and
    that from the best to the largest of all. "simultaneous" intervals are for all languages.
    """
    panel = inputs.select(multilingual.by_batch_size)
    done = panel.done
    recall = {k: v for k, v in multilingual.recall_by_language(done).items() if k != "avg"}
    mean = multilingual.mean_recall(done)
    levels = group_means(by_group(done, ["batch_size"], mean)).means
    if len(levels) < 2 or not recall:
        return points.make_table([])
    best, changes = max(levels, key=levels.__getitem__), _changes(done, levels)
    series = f"B = {style.format_size(best)}{_steps(done, best)}"
    rows: list[Row] = []
    for language, metric in recall.items():
        own = done[done["batch_size"] == best].assign(x=language, series=series)
        rows += points.our_points(own, RECALL, metric, inputs.read_items)
        means = group_means(by_group(done, ["batch_size"], metric), read_items=inputs.read_items)
        for pair, name in changes.items():
            common = {"panel": CHANGE, "source": "ours", "series": name, "x": language}
            rows += _change(means, pair, common | {"metric": metric}, len(recall))
    return points.make_table(
        rows,
        panels=[panel],
        missing=points.without_metric(panel, mean),
        title=f"{points.describe_panel(panel)}; {style.metric_label(mean)}".replace("\n", " "),
    )


def _changes(done: pd.DataFrame, levels: Mapping[int, float]) -> dict[tuple[int, int], str]:
    """The pairs of batch sizes whose change is shown, in words."""
    sizes, short = sorted(levels), too_short(steps_by_size(done))
    deciding = [size for size in sizes if size not in short]
    best = max(sizes[:-1], key=levels.__getitem__)
    pairs = [(deciding[0], deciding[-1])] if len(deciding) > 1 else []
    pairs += [(best, sizes[-1])]
    return {
        (first, last): f"B = {style.format_size(first)} to {style.format_size(last)}"
        + _steps(done, last)
        for first, last in dict.fromkeys(pairs)
    }


def _steps(done: pd.DataFrame, size: int) -> str:
    steps = steps_by_size(done)
    return f" ({steps[size]:,} steps)" if size in steps else ""


def _change(means: GroupMeans, pair: tuple[int, int], common: Row, languages: int) -> list[Row]:
    if not {*pair} <= {*means.means}:
        return []
    first, last = pair
    rows = []
    for kind, comparisons in (("mean", 1), ("simultaneous", languages)):
        change = means.contrast({last: 1.0, first: -1.0}, comparisons=comparisons)
        rows.append(
            common
            | {"kind": kind, "n": min(means.counts[size] for size in pair)}
            | {"value": change.estimate, "low": change.low, "high": change.high}
        )
    return rows


def draw(df: pd.DataFrame) -> StudyFigure:
    """Languages by script, in each sorted by their recall: side by side, in a column below one
    another."""
    changes = list(dict.fromkeys(df.loc[df["panel"] == CHANGE, "series"]))
    places = _places(df[df["panel"] == RECALL])
    upright = not style.current_page().wide
    shown = [(RECALL, str(df.loc[df["panel"] == RECALL, "series"].iloc[0]))]
    shown += [(CHANGE, series) for series in changes]
    legend = [LOST.handle("clearly falls"), GAINED.handle("clearly rises"), LOOK.handle("else")]
    if not df["low"].notna().any():
        legend = []
    fig, every = layout.make_figure(
        df,
        title="Recall by language, and its change with the batch",
        caption=[
            "Text-to-image recall@1 at the batch size with the best mean over languages, and its "
            f"change between batch sizes. Bars: 95 % interval, {ASSUMPTION}; thin: simultaneous "
            "for all languages (Bonferroni); a change whose thin bar leaves zero out is marked. "
            "Languages are sorted by recall within their script. Batch sizes with fewer than "
            f"{FEWEST_STEPS} steps decide no claim: a fall may be that of a short run."
        ],
        columns=[len(shown)] if upright else [1] * len(shown),
        heights=5.0 if upright else 1.6,
        legend=legend,
    )
    for axes, (panel, series) in zip(every, shown, strict=True):
        mine = df[(df["panel"] == panel) & (df["series"] == series)]
        if panel == CHANGE:
            (axes.axvline if upright else axes.axhline)(0, color="black", linewidth=0.8)
        _draw_languages(axes, mine, places, upright=upright)
        label = "recall@1 (%)" if panel == RECALL else "change (points)"
        (axes.set_xlabel if upright else axes.set_ylabel)(label)
        words = series.replace(" (", "\n(") if upright else series
        axes.set_title(words, loc="left", fontsize=style.BODY - upright)
        _label(axes, places, upright=upright, scripts=axes is every[0])
        if upright and axes is not every[0]:
            axes.tick_params(labelleft=False)
    return fig


def _places(recall: pd.DataFrame) -> dict[str, float]:
    """Where each language stands: scripts with a gap between, the best of each first."""
    levels = style.means(recall).set_index("x")["value"].sort_values(ascending=False)
    places: dict[str, float] = {}
    at = 0.0
    for script in (LATIN, *SCRIPTS):
        own = [name for name in levels.index if script_of(name) == script]
        places |= {name: at + i for i, name in enumerate(own)}
        at += len(own) + bool(own)
    return places


def _draw_languages(
    axes: Axes, df: pd.DataFrame, places: Mapping[str, float], *, upright: bool
) -> None:
    wide = df[df["kind"] == "simultaneous"].set_index("x")
    for row in style.means(df).itertuples():
        at, look = places[row.x], LOOK
        if row.x in wide.index:
            low, high = wide.loc[row.x, ["low", "high"]]
            look = LOST if high < 0 else GAINED if low > 0 else LOOK
            _bar(axes, at, (low, high), look, upright=upright, linewidth=0.5)
        _bar(axes, at, (row.low, row.high), look, upright=upright, linewidth=1.2)
        spot = (row.value, at) if upright else (at, row.value)
        axes.plot(*spot, marker=look.marker, color=look.colour, markersize=3.4)


def _bar(
    axes: Axes, at: float, ends: Sequence[float], look: SeriesStyle, *, upright: bool, **more: Any
) -> None:
    line = (list(ends), [at, at]) if upright else ([at, at], list(ends))
    axes.plot(*line, color=look.colour, **more)


def _label(axes: Axes, places: Mapping[str, float], *, upright: bool, scripts: bool) -> None:
    axis = axes.yaxis if upright else axes.xaxis
    axis.set_ticks(list(places.values()), list(places), fontsize=style.SMALL)
    limits = (-0.8, max(places.values()) + 0.8)
    (axes.set_ylim if upright else axes.set_xlim)(*(limits[::-1] if upright else limits))
    axes.tick_params(axis="y" if upright else "x", length=0, pad=1)
    axes.grid(visible=False, axis="y" if upright else "x")
    for script in (LATIN, *SCRIPTS) if scripts and not upright else ():
        own = [at for name, at in places.items() if script_of(name) == script]
        if own:
            axes.annotate(
                script.replace(" ", "\n"), (sum(own) / len(own), 1.02),
                xycoords=("data", "axes fraction"), fontsize=style.SMALL, color="#555555",
                ha="center", va="bottom",
            )  # fmt: skip


languages = Plot("languages", data, draw)
