"""Fig. 8: retrieval by language, mSigLIP (paper App. D; its numbers are Table 9).

Cells: see `analysis.figures.multilingual`; the scaled-up run is in the table alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures import multilingual
from analysis.figures.base import Inputs, Plot
from analysis.figures.multilingual import SCALED
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.paper.reference import reference

DIRECTIONS = {"image_to_text": "image-to-text", "text_to_image": "text-to-image"}


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

    Languages stand below one another in a column, else side by side.
    """
    means = style.means(df)
    means = means[~means["series"].str.endswith(SCALED)]
    names = [name for name in DIRECTIONS if (means["panel"] == name).any()]
    sizes = sorted(set(means["series"]), key=style.parse_size)
    table = means.pivot_table(index=["panel", "x"], columns="series", values="value")
    by_size = table.xs("avg", level="x").mean() if "avg" in table.index.levels[1] else table.mean()
    best = str(by_size.idxmax())
    others = [size for size in sizes if size != best] or sizes
    change = table.sub(table[best], axis=0)
    looks = style.batch_size_styles([style.parse_size(size) for size in sizes])
    upright = not style.current_page().wide
    columns = [2] if upright else [1, 1]
    fig, every = layout.make_figure(
        df,
        title="Fig. 8: retrieval by language (XM3600)",
        caption=[
            f"Change of recall@1 from B = {best}, which has the best mean over languages; sorted "
            f"by the change at B = {others[-1]}. Table 9 has the recall itself, and the scaled-up "
            "run."
        ],
        columns=columns[: len(names)] if not upright else [len(names)],
        heights=4.6 if upright else 1.7,
        legend=[
            looks[style.parse_size(size)].handle(f"{'' if i else 'B = '}{size}", linestyle="")
            for i, size in enumerate(others)
        ],
    )
    for axes, name in zip(every, names, strict=True):
        mine = change.xs(name, level="panel").sort_values(others[-1])
        places = np.arange(len(mine))
        for size in others:
            look = looks[style.parse_size(size)]
            last = size == others[-1]
            dots: dict[str, Any] = {"linestyle": "", "marker": look.marker, "color": look.colour}
            dots |= {"markersize": 4.0 if last else 2.8, "alpha": 1.0 if last else 0.7}
            values = mine[size].to_numpy(float)
            axes.plot(*((values, places) if upright else (places, values)), **dots)
        _label_languages(axes, list(mine.index), f"change from {best} (points)", upright=upright)
        axes.set_title(DIRECTIONS[name], loc="left")
    layout.share_limits(every, "x" if upright else "y")
    return fig


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
