"""Fig. 8: retrieval by language, mSigLIP (paper App. D; its numbers are Table 9).

Cells: see `analysis.select.multilingual`; the scaled-up run is in the table alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.paper.reference import reference
from analysis.select import multilingual
from analysis.select.multilingual import SCALED

DIRECTIONS = {"image_to_text": "image-to-text", "text_to_image": "text-to-image"}
SOURCE_NAMES = {"ours": "ours", "paper": "the paper"}


def data(inputs: Inputs) -> pd.DataFrame:
    """The marks, see `points`; x is the language, series the batch size."""
    selection = multilingual.with_scaled_up(inputs.cells)
    rows: list[Row] = []
    missing: list[str] = []
    for direction, printed in DIRECTIONS.items():
        for panel, suffix in selection:
            done = panel.done
            done = done.assign(
                series=[style.format_size(size) + suffix for size in done["batch_size"]]
            )
            metrics = multilingual.recall_by_language(done, direction)
            for language, metric in metrics.items():
                rows += points.our_points(
                    done.assign(x=language), direction, metric, inputs.read_items
                )
            if "avg" in metrics:
                missing += points.without_metric(panel, metrics["avg"])
        table = reference("Table 9", panel=printed)
        scaled = table["panel"].str.contains("scaled-up").map({True: SCALED, False: ""})
        series = table["x"].astype(int).map(style.format_size) + scaled
        x = table["series"].str.removeprefix("lang=")
        rows += points.paper_points(table, direction, series=series, x=x)
    used = [panel for panel, _ in selection if len(panel.cells)]
    title = points.describe_panel(used[0]) if used else ""
    return points.make_table(rows, panels=used, missing=missing, title=title)


def draw(df: pd.DataFrame) -> StudyFigure:
    """The change of each language from the batch size with the best mean, sorted.

    Languages stand below one another in a column, else side by side. Ours and the paper's have
    panels of their own, since the same batch size may be in both.
    """
    means = style.means(df)
    means = means[~means["series"].str.endswith(SCALED)]
    panels = [
        (source, name)
        for source in ("ours", "paper")
        for name in DIRECTIONS
        if ((means["source"] == source) & (means["panel"] == name)).any()
    ]
    changes = {
        source: _changes(means[means["source"] == source]) for source, _ in dict.fromkeys(panels)
    }
    sizes = sorted(
        {size for change in changes.values() for size in change.sizes}, key=style.parse_size
    )
    looks = style.batch_size_styles([style.parse_size(size) for size in sizes])
    upright = not style.current_page().wide
    names = list(dict.fromkeys(name for _, name in panels))
    both = len(changes) > 1
    best = [f"B = {change.best} ({SOURCE_NAMES[source]})" for source, change in changes.items()]
    from_best = " and ".join(best) if both else best[0].partition(" (")[0]
    drawn = {size for change in changes.values() for size in change.others}
    others = [size for size in sizes if size in drawn]
    fig, every = layout.make_figure(
        df,
        title="Fig. 8: retrieval by language",
        caption=[
            f"Change of recall@1 from {from_best}, which has the best mean over languages; sorted "
            "by the change at the largest batch size. The paper's is on XM3600. Table 9 has the "
            "recall itself, and the scaled-up run."
        ],
        columns=[len(names)] * len(changes) if upright else [1] * len(panels),
        heights=4.6 if upright else 1.7,
        legend=[
            looks[style.parse_size(size)].handle(f"{'' if i else 'B = '}{size}", linestyle="")
            for i, size in enumerate(others)
        ],
    )
    for axes, (source, name) in zip(every, panels, strict=True):
        change = changes[source]
        mine = change.table.xs(name, level="panel").sort_values(change.others[-1])
        places = np.arange(len(mine))
        for size in change.others:
            look = looks[style.parse_size(size)]
            last = size == change.others[-1]
            dots: dict[str, Any] = {"linestyle": "", "marker": look.marker, "color": look.colour}
            dots |= {"markersize": 4.0 if last else 2.8, "alpha": 1.0 if last else 0.7}
            values = mine[size].to_numpy(float)
            axes.plot(*((values, places) if upright else (places, values)), **dots)
        label = f"change from {change.best} (points)"
        _label_languages(axes, list(mine.index), label, upright=upright)
        title = f"{SOURCE_NAMES[source]}, {DIRECTIONS[name]}" if both else DIRECTIONS[name]
        axes.set_title(title, loc="left")
    layout.share_limits(every, "x" if upright else "y")
    return fig


class _Changes(NamedTuple):
    """Changes of recall by panel and language (rows) and batch size (columns), of one source."""

    table: pd.DataFrame
    sizes: list[str]
    best: str  # the batch size that the changes are from
    others: list[str]  # those that are drawn


def _changes(means: pd.DataFrame) -> _Changes:
    sizes = sorted(set(means["series"]), key=style.parse_size)
    table = means.pivot_table(index=["panel", "x"], columns="series", values="value")
    by_size = table.xs("avg", level="x").mean() if "avg" in table.index.levels[1] else table.mean()
    best = str(by_size.idxmax())
    others = [size for size in sizes if size != best] or sizes
    return _Changes(table.sub(table[best], axis=0), sizes, best, others)


def _label_languages(axes: Axes, names: Sequence[str], change: str, *, upright: bool) -> None:
    small: dict[str, Any] = {"fontsize": style.SMALL}
    if upright:
        axes.set_yticks(range(len(names)), names, **small)
        axes.set_ylim(-0.8, len(names) - 0.2)
        axes.set_xlabel(change)
        axes.axvline(0, color="black", linewidth=0.8)
    else:
        axes.set_xticks(range(len(names)), names, rotation=90, **small)
        axes.set_xlim(-0.8, len(names) - 0.2)
        axes.set_ylabel(change)
        axes.axhline(0, color="black", linewidth=0.8)
    axes.tick_params(axis="y" if upright else "x", length=0, pad=1)


fig_8 = Plot("fig_8", data, draw)
