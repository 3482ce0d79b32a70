"""The longest budget as the others predict it, beside what was measured there.

Cells: those of `surface`. The surface is fitted to all budgets but the longest, by the form that
fits these best; it is extrapolated to the longest. The paper's cells are its Table 8.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis.advice import grid_cells, paper_values, short, tried_cells, values_of
from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.quality_by_budget import quality_label
from analysis.figures.extra.surface import DRAWS, every_budget
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import LOSSES, STYLES
from analysis.paper.reference import reference
from analysis.stats.held_out import ENOUGH_TO_PREDICT, HeldOut, hold_out
from analysis.stats.surface import ERROR_FORMS

GRID = 25  # points of a predicted line


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is the loss and x the batch size, at the longest budget of all.

    kind: "seed" and "mean" are measured, "predicted" is the surface at the measured batch sizes,
    "line" the same between them, each with a 95 % bootstrap interval, and "fit" its errors in words
    as id, with their root mean square as value.
    """
    rows: list[Row] = []
    for loss in LOSSES:
        measured = pd.DataFrame()
        if not len(inputs.cells):
            values = paper_values("table-8", loss)
        else:
            metric = inputs.quality_of(inputs.cells)
            measured = tried_cells(inputs.cells, loss, metric)
            values = values_of(measured, metric)
        held = hold_out(grid_cells(values), draws=DRAWS) if values else None
        if held is not None:
            rows += _measured(inputs, measured, loss, held) + _predicted(held, loss)
    return points.make_table(
        rows,
        panels=every_budget(inputs) if rows else (),
        why=f"it needs {ENOUGH_TO_PREDICT} batch sizes at two budgets or more beside the longest",
    )


def _measured(inputs: Inputs, cells: pd.DataFrame, loss: str, held: HeldOut) -> list[Row]:
    if not len(cells):
        metric = reference("Table 8")["metric"].iloc[0]
        return [
            {"panel": loss, "source": "paper", "series": "measured", "kind": "mean"}
            | {"x": int(size), "value": 100 - error, "metric": metric}
            for size, error in zip(held.cells.batch_N, held.cells.error_N, strict=True)
        ]
    mine = cells[cells["budget.examples"] == held.examples]
    same = mine.assign(series="measured", x=mine["batch_size"])
    return points.our_points(same, loss, inputs.quality_of(inputs.cells), inputs.read_items)


def _predicted(held: HeldOut, loss: str) -> list[Row]:
    measured_N = held.cells.batch_N
    between_G = np.geomspace(measured_N.min(), measured_N.max(), GRID).round()
    common = {"panel": loss, "source": "fit", "series": "predicted"}
    rows: list[Row] = []
    for kind, sizes in (("predicted", measured_N), ("line", between_G)):
        value = 100 - held.surface.error(sizes, held.examples)
        worst, best = held.surface.error_interval(sizes, held.examples)[::-1]
        columns = {"x": sizes.astype(int), "value": value, "low": 100 - worst, "high": 100 - best}
        rows += [common | {"kind": kind} | row for row in pd.DataFrame(columns).to_dict("records")]
    form = held.surface.form
    words = (
        f"{loss}: {short(held.examples)} examples predicted from {len(held.surface.cells)} cells "
        f"with fewer, by {ERROR_FORMS[form].formula}; errors {held.rms:.2f} points rms, "
        f"{held.worst:.1f} at most"
    )
    return [*rows, common | {"kind": "fit", "value": held.rms, "id": words}]


def draw(df: pd.DataFrame) -> StudyFigure:
    """A panel for each loss: measured points, the predicted line and its interval."""
    losses = [loss for loss in LOSSES if (df["panel"] == loss).any()]
    fits = df.loc[df["kind"] == "fit", "id"]
    columns = layout.arrange(len(losses), wide=2)
    fig, every = layout.make_figure(
        df,
        title="The longest budget, as shorter ones predict it",
        caption=[
            "The line is a surface that was fitted without these cells, with its 95 % bootstrap "
            f"interval. {'. '.join(fits)}."
        ],
        columns=columns,
        heights=2.1,
        legend=[
            Line2D([], [], color="#333333", marker="o", linestyle="", label="measured"),
            Line2D([], [], color="#333333", linestyle=style.DASHED, label="predicted"),
        ],
    )
    for axes, loss in zip(every, losses, strict=True):
        part, look = df[df["panel"] == loss], STYLES[loss]
        line, means = part[part["kind"] == "line"], style.means(part)
        style.band(axes, line, look)
        style.line(axes, line, look, linestyle=style.DASHED)
        hollow = {"markerfacecolor": "white"} if (means["source"] == "paper").all() else {}
        style.bars(axes, means, look)
        style.line(axes, means, look, linestyle="", marker=look.marker, **hollow)
        style.batch_axis(axes, means["x"].astype(float))
        axes.set_title(loss, loc="left")
        axes.set_ylabel(quality_label(means["metric"].iloc[0]))
    layout.share_y(every, columns)
    layout.hide_inner_labels(every, columns)
    return fig


held_out = Plot("held_out", data, draw)
