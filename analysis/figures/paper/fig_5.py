"""Fig. 5: beta2 and stability (paper Sec. 4.7).

Cells, by their fields: sigmoid with all pairs that differ in `optimizer.b2` and nothing else, at
least two values. Of several batch sizes the one with most values; curves of the training loss,
the gradient's norm and the update's norm along each run: of each row the maximum over the steps
since the row before, or in older records the value of its one step.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import points, style
from analysis.figures.plot import side_by_side as beside
from analysis.figures.plot.side_by_side import PanelSpec
from analysis.select import panels
from analysis.select.fields import with_fields

METRICS = {
    "train/loss": "training loss",
    "train/grad_norm": "gradient norm",
    "train/update_norm": "update norm",
}
SAYS = (
    "the paper prints no numbers; it says that at 0.999 spikes of the gradient's norm lead to "
    "large updates and bumps of the loss, and that at 0.95 training is stable though spikes remain"
)
MAXIMA = "each point is the maximum over all steps since the point before"
SAMPLED = "each point is one step; what happened in the steps between two points is not recorded"
# The paper's two values first, so that they always look the same.
STYLES = (
    style.STYLES["softmax"],
    style.STYLES["sigmoid"],
    *style.STEPS[2:],
)
PAPER = (0.999, 0.95)


def data(inputs: Inputs) -> pd.DataFrame:
    """The curves, see `points.curves`; series is beta2."""
    cells = with_fields(inputs.cells, ("optimizer.b2",))
    own = (cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all")
    panel = panels.select(cells[own], ("optimizer.b2",))
    if panel.cells["optimizer.b2"].nunique() < 2:
        return points.frame([])
    done = panel.done
    done = done.assign(series=[_name(b2) for b2 in done["optimizer.b2"]])
    rows: list[dict[str, Any]] = []
    own_rows = inputs.rows[inputs.rows["id"].isin(done["id"])]
    maxima = {metric: f"{metric}_max" for metric in METRICS}
    every_step = all(name in own_rows and own_rows[name].notna().any() for name in maxima.values())
    for metric, largest in maxima.items():
        rows += points.curves(own_rows, done, metric, largest if every_step else metric)
    missing = [
        f"{metric} in every record"
        for metric in METRICS
        if len(done) and not any(row["panel"] == metric for row in rows)
    ]
    title = points.short_title(panel)
    notes = [SAYS, MAXIMA if every_step else SAMPLED]
    return points.frame(rows, panels=[panel], missing=missing, notes=notes, title=title)


def draw(df: pd.DataFrame) -> Figure:
    specs = [
        beside.along_runs(
            PanelSpec(
                name=metric, title="", label=label, log=metric == "train/grad_norm", height=1.3
            ),
            axis=_axis,
        )
        for metric, label in METRICS.items()
    ]
    values = sorted(df["series"].unique(), key=lambda name: (-(name in map(_name, PAPER)), name))
    ordered = [n for n in map(_name, PAPER) if n in values]
    ordered += [n for n in values if n not in ordered]
    looks = dict(zip(ordered, (STYLES * len(ordered))[: len(ordered)], strict=True))
    return beside.draw(df, specs, looks, title="Fig. 5: beta2 and stability")


def _name(b2: float) -> str:
    return f"beta2 = {b2:g}"


def _axis(axes: Axes, values: list[Any]) -> None:
    style.examples_axis(axes, [max(values) * k / 5 for k in range(1, 6)], log=False)


fig_5 = Plot("fig_5", data, draw)
