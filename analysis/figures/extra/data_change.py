"""A stress test of beta2 that the paper does not have: the training data change within the run.

Cells: both values of beta2 with `data.corruption.until_examples`, and beside them the cells that
equal them but for the data. A point is a run's worst spike: the largest norm of a step, after the
change, over the median of the rows around it.
"""

from __future__ import annotations

import pandas as pd

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.select.fields import row_keys, same_fields, with_fields
from analysis.select.panels import Panel
from analysis.stats.intervals import ASSUMPTION
from analysis.stats.spikes import ENDS, GRADIENTS, UPDATES, with_spikes

B2, WORST = "optimizer.b2", "worst"
NORMS = {GRADIENTS: "gradient", UPDATES: "update"}
CHANGE, PLAIN = "data change", "plain"
LOOKS = {
    "beta2 = 0.999": style.SeriesStyle(colour=style.WINE, marker="s", line=style.DASHED),
    "beta2 = 0.95": style.SeriesStyle(colour=style.TEAL, marker="o"),
}
NOTE = "this is a stress test and not the paper's run, whose data do not change"


def data(inputs: Inputs) -> pd.DataFrame:
    """Series is beta2, x the batch size, value the worst spike as a multiple of the median.

    A panel is a norm, whether the data change, and optimizer and loss.
    """
    panel = _panel(inputs.cells)
    rows: list[Row] = []
    for norm, name in NORMS.items():
        done = panel.done if len(panel.cells) else panel.cells
        done = with_spikes(done, inputs.rows, norm).assign(x=done["batch_size"].tolist())
        done["series"] = [f"beta2 = {b2:g}" for b2 in done[B2]]
        done["panel"] = [
            f"{name}, {PLAIN if pd.isna(until) else CHANGE}: {optimizer}, {loss}"
            for until, optimizer, loss in zip(
                done[ENDS], done["optimizer.kind"], done["loss.kind"], strict=True
            )
        ]
        for own, cells in done.groupby("panel", sort=False):
            rows += points.our_points(cells, str(own), WORST)
    for row in rows:
        row |= {end: 10 ** row[end] for end in ("value", "low", "high") if end in row}
    rows.sort(key=lambda row: PLAIN in row["panel"])
    title = points.describe_panel(panel)
    return points.make_table(rows, panels=[panel], notes=[NOTE], title=title)


def _panel(cells: pd.DataFrame) -> Panel:
    cells = with_fields(cells, (B2, ENDS, "optimizer.kind"))
    cells = cells[cells[B2].isin([0.95, 0.999])]
    fields = same_fields(cells, (B2,), ignoring=("data.corruption.",))
    stressed = set(row_keys(cells[cells[ENDS].notna()], fields))
    own = pd.Series(row_keys(cells, fields), index=cells.index, dtype=object).isin(stressed)
    axes = ("optimizer.kind", "loss.kind", ENDS, "batch_size", B2)
    cells = cells[own].sort_values([*axes, "seed"], ignore_index=True)
    return Panel(cells=cells, axes=axes)


def draw(df: pd.DataFrame) -> StudyFigure:
    """One y scale for all panels."""
    names = list(dict.fromkeys(df["panel"]))
    columns = layout.arrange(len(names), wide=4, narrow=2)
    words = (
        "Worst spike of a run: the largest norm of a step over the median around it, where the "
        f"data change after the change. Dots: seeds. Bars: 95 % interval, {ASSUMPTION}."
    )
    fig, every = layout.make_figure(
        df,
        title="A stress test of beta2: the data change within the run",
        caption=[words],
        columns=columns,
        heights=1.5,
        legend=[look.handle(name) for name, look in LOOKS.items()],
    )
    for axes, name in zip(every, names, strict=True):
        for series, look in LOOKS.items():
            mine = df[(df["panel"] == name) & (df["series"] == series)]
            style.dots(axes, mine, look, size=2.0)
            style.bars(axes, style.means(mine), look)
            style.line(axes, style.means(mine).sort_values("x"), look, marker=look.marker)
        style.batch_axis(axes, sorted(df["x"].unique()))
        axes.set_yscale("log")
        axes.set_ylabel("worst spike (times)")
        axes.set_title(name.replace(": ", ":\n"), loc="left")
    layout.share_y(every, columns)
    for axes in every:
        style.plain_log(axes, "y")  # its ticks are those of the shared limits
    layout.hide_inner_labels(every, columns)
    return fig


data_change = Plot("data_change", data, draw)
