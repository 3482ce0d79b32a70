"""Fig. 5: beta2 and stability (paper Sec. 4.7).

Cells, by their fields: sigmoid with all pairs that differ in `optimizer.b2` and nothing else, at
least two values; not those whose data change within the run, see `data_change`. Of several batch
sizes the one with most values; curves of the training loss, the gradient's norm and the update's
norm along each run: each point is the maximum over the steps since the one before, or in older
records the value of a single step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.side_by_side import PanelSpec, draw_panels
from analysis.figures.plot.style import SeriesStyle
from analysis.select import panels
from analysis.select.fields import with_fields
from analysis.stats.spikes import ENDS

METRICS = {
    "train/loss": "training loss",
    "train/grad_norm": "gradient norm",
    "train/update_norm": "update norm",
}
PAPER_SAYS = (
    "the paper prints no numbers; it says that at 0.999 spikes of the gradient's norm lead to "
    "large updates and bumps of the loss, and that at 0.95 training is stable though spikes remain"
)
MAXIMA = "each point is the maximum over all steps since the point before"
SAMPLED = "each point is one step; what happened in the steps between two points is not recorded"
# The paper's two values first, so that they always look the same.
PAPER_VALUES = ("beta2 = 0.999", "beta2 = 0.95")
LOOKS = (
    SeriesStyle(colour=style.WINE, marker="s", line=style.DASHED),
    SeriesStyle(colour=style.TEAL, marker="o"),
    *style.ORDERED_STYLES[2:],
)


def data(inputs: Inputs) -> pd.DataFrame:
    """The curves, see `points.curves`; series is beta2."""
    cells = with_fields(inputs.cells, ("optimizer.b2", ENDS))
    own = (cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all")
    own &= cells[ENDS].isna()
    panel = panels.select(cells[own], ("optimizer.b2",))
    if panel.cells["optimizer.b2"].nunique() < 2:
        return points.make_table([])
    done = panel.done
    done = done.assign(series=[f"beta2 = {b2:g}" for b2 in done["optimizer.b2"]])
    lines = inputs.rows[inputs.rows["id"].isin(done["id"])]
    maxima = {metric: f"{metric}_max" for metric in METRICS}
    every_step = all(name in lines and lines[name].notna().any() for name in maxima.values())
    rows = [
        row
        for metric, largest in maxima.items()
        for row in points.curves(lines, done, metric, largest if every_step else metric)
    ]
    present = {row["panel"] for row in rows}
    missing = [f"{m} in every record" for m in METRICS if len(done) and m not in present]
    return points.make_table(
        rows,
        panels=[panel],
        missing=missing,
        notes=[PAPER_SAYS, MAXIMA if every_step else SAMPLED],
        title=points.describe_panel(panel),
    )


def draw(df: pd.DataFrame) -> StudyFigure:
    specs = [
        PanelSpec(
            name=metric,
            title="",
            label=label,
            axis=_axis,
            log=metric == "train/grad_norm",
            curves=True,
        )
        for metric, label in METRICS.items()
    ]
    values = sorted(set(df["series"]))
    ordered = [v for v in PAPER_VALUES if v in values]
    ordered += [v for v in values if v not in ordered]
    styles = dict(zip(ordered, (LOOKS * len(ordered))[: len(ordered)], strict=True))
    return draw_panels(df, specs, styles, title="Fig. 5: beta2 and stability")


def _axis(axes: Axes, values: Sequence[Any]) -> None:
    style.examples_axis(axes, values, log=False)


fig_5 = Plot("fig_5", data, draw)
