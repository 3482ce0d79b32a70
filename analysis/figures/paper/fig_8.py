"""Fig. 8: retrieval by language, mSigLIP (paper App. D; its numbers are Table 9).

Cells: see `analysis.figures.multilingual`; one mark for each batch size, and marks of their own for
the scaled-up run.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import multilingual
from analysis.figures.base import Inputs, Plot
from analysis.figures.multilingual import SCALED
from analysis.figures.plot import points, style
from analysis.figures.plot.points import Row
from analysis.figures.plot.side_by_side import PanelSpec, draw_panels
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
                rows += points.our_points(done.assign(x=language), direction, metric)
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


def draw(df: pd.DataFrame) -> Figure:
    """Image to text above, text to image below; the mean of all languages last."""
    names = sorted(set(df["x"]), key=lambda name: (name == "avg", name))
    series = sorted(set(df["series"]), key=_by_size)
    styles = dict(zip(series, itertools.cycle(style.ORDERED_STYLES), strict=False))

    def axis(axes: Axes, values: Sequence[Any]) -> None:
        del values
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=style.SMALL)
        axes.tick_params(axis="x", length=0, pad=1)
        axes.set_xlim(-0.8, len(names) - 0.2)
        axes.set_ylim(bottom=0)

    specs = [
        PanelSpec(
            name=name,
            title=printed.replace("-", " "),
            label="recall@1 (%)",
            axis=axis,
            height=2.0,
            joined=False,
        )
        for name, printed in DIRECTIONS.items()
    ]
    # The marks of one language stand next to each other, so that none hides another.
    offsets = {name: (i / max(len(series) - 1, 1) - 0.5) * 0.55 for i, name in enumerate(series)}
    x = df["x"].map(names.index) + df["series"].map(offsets)
    title = "Fig. 8: retrieval by language (XM3600)"
    return draw_panels(df.assign(x=x), specs, styles, title=title)


def _by_size(series: str) -> tuple[bool, int]:
    """Batch sizes in their order, the scaled-up run last."""
    return series.endswith(SCALED), style.parse_size(series.removesuffix(SCALED))


fig_8 = Plot("fig_8", data, draw)
