"""The surface of quality over examples seen and batch size, and its ridge, the best batch size.

Cells: those of Fig. 3 at every budget and batch size, see `advice.advise_cells`. The paper's are
its Table 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import advice
from analysis.advice import Advice, short
from analysis.errors import AnalysisError
from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import LOSSES, STYLES
from analysis.select import panels
from analysis.select.panels import Panel
from analysis.stats.surface import ERROR_FORMS, BatchInterval

GRID = 25  # points of the drawn surface along each axis
LEVELS = (0.0, 0.5, 1.0, 2.0, 4.0)  # points below the best batch size
SHADES = ("#ffffff", "#efefef", "#dedede", "#cacaca", "#b2b2b2")
DRAWS = 100  # bootstrap fits


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is the loss and x the examples seen.

    kind: "cell" is a measured mean (series is the batch size, value the quality), "regret" a point
    of the surface (value: points below the best batch size there), "best" and "enough" a batch size
    as value with its interval, and "fit" the fit in words, as id.
    """
    rows: list[Row] = []
    why = ""
    for loss in LOSSES:
        try:
            rows += _rows(_advise(inputs, loss), "ours" if len(inputs.cells) else "paper")
        except AnalysisError as error:
            why = str(error)
    return points.make_table(rows, panels=every_budget(inputs) if rows else (), why=why)


def every_budget(inputs: Inputs) -> list[Panel]:
    """The panels of both kinds of image tower, one for each budget; none without records."""
    if not len(inputs.cells):
        return []
    return [
        panel
        for image in ("cached", "vit")
        for panel in inputs.select(panels.by_budget, image=image).values()
    ]


def _advise(inputs: Inputs, loss: str) -> Advice:
    cells = inputs.cells
    if not len(cells):
        return advice.advise_paper("table-8", 18e9, loss=loss, draws=DRAWS)
    if "budget.examples" not in cells or not cells["budget.examples"].notna().any():
        raise AnalysisError("no cells with a budget of examples")
    longest = float(cells["budget.examples"].max())
    return advice.advise_cells(
        cells, "the study", longest, loss=loss, metric=inputs.quality_of(cells), draws=DRAWS
    )


def _rows(one: Advice, source: str) -> list[Row]:
    surface, grid = one.surface, one.surface.cells
    common = {"panel": one.loss, "source": source}
    rows: list[Row] = [
        common | {"kind": "cell", "series": batch, "x": examples, "value": 100 - error}
        for batch, examples, error in zip(grid.batch_N, grid.examples_N, grid.error_N, strict=True)
    ]
    budgets = grid.examples_N.min(), grid.examples_N.max()
    sizes_G = _geometric(grid.batch_N.min(), grid.batch_N.max())
    for examples in _geometric(*budgets):
        optimum = surface.optimum(float(examples))
        below_G = surface.error(sizes_G, examples) - optimum.error
        rows += [
            common
            | {"kind": "regret", "series": batch, "x": examples, "value": round(max(below, 0.0), 3)}
            for batch, below in zip(sizes_G, below_G, strict=True)
        ]
        for kind, at in (("best", optimum.best), ("enough", optimum.enough)):
            rows.append(common | {"kind": kind, "x": examples} | _interval(at))
    return [*rows, common | {"kind": "fit", "value": surface.rms, "id": _describe(one)}]


def _geometric(low: float, high: float) -> np.ndarray:
    """As many points as the grid has, in few digits."""
    return np.array([float(f"{x:.5g}") for x in np.geomspace(low, high, GRID)])


def _interval(at: BatchInterval) -> Row:
    ends = {"value": at.batch, "low": at.low, "high": at.high}
    return {name: float(f"{batch:.5g}") for name, batch in ends.items()}


def _describe(one: Advice) -> str:
    surface, held = one.surface, one.held_out
    words = (
        f"{one.loss}: {ERROR_FORMS[surface.form].formula}, {len(surface.cells)} cells, residuals "
        f"{surface.rms:.2f} points rms"
    )
    if held is None:
        return f"{words}, too few cells to hold a budget out"
    return (
        f"{words}; fitted without {short(held.examples)} examples, {held.surface.form} misses the "
        f"cells there by {held.rms:.2f} points rms"
    )


def draw(df: pd.DataFrame) -> StudyFigure:
    """Points below the best batch size as shades, the ridge, and the smallest batch within 0.5."""
    losses = [loss for loss in LOSSES if (df["panel"] == loss).any()]
    grey: dict[str, Any] = {"color": "#333333"}
    solid, dashed = STYLES["difference"], STYLES["softmax"]
    fits = df.loc[df["kind"] == "fit", "id"]
    columns = layout.arrange(len(losses), wide=2)
    fig, every = layout.make_figure(
        df,
        title="The best batch size by examples seen",
        caption=[
            "The lines, with their 95 % bootstrap intervals, are of a surface fitted to the cells "
            "(dots). "
            "Shades: points below the best batch size for as many examples. "
            f"{'. '.join(fits)}."
        ],
        columns=columns,
        heights=2.3,
        legend=[
            solid.handle("best batch size", marker="", **grey),
            dashed.handle("smallest within 0.5 points", marker="", **grey),
        ],
    )
    sizes = sorted(set(df.loc[df["kind"] == "cell", "series"].astype(float)))
    for axes, loss in zip(every, losses, strict=True):
        shades = _draw_surface(axes, df[df["panel"] == loss], loss)
        style.batch_axis(axes, sizes, axis="y")
        axes.set_ylim(sizes[0] / 1.5, sizes[-1] * 1.5)
        axes.set_title(loss, loc="left")
    bar = fig.colorbar(shades, ax=every, pad=0.02, aspect=25)
    bar.set_label("points below the best", fontsize=style.SMALL)
    layout.share_y(every, columns)
    layout.hide_inner_labels(every, columns)
    return fig


def _draw_surface(axes: Axes, df: pd.DataFrame, loss: str) -> Any:
    regret = df[df["kind"] == "regret"]
    table = regret.assign(series=regret["series"].astype(float)).pivot(
        index="series", columns="x", values="value"
    )
    axes.grid(visible=False)
    shades = axes.contourf(
        *(table.columns.to_numpy(float), table.index.to_numpy(float), table.to_numpy(float)),
        levels=LEVELS, colors=SHADES, extend="max",
    )  # fmt: skip
    cells = df[df["kind"] == "cell"]
    dots: dict[str, Any] = {"marker": "o", "color": "#555555", "markersize": 2.0, "linestyle": ""}
    axes.plot(cells["x"].to_numpy(float), cells["series"].to_numpy(float), **dots)
    low, high = table.index.min(), table.index.max()
    for kind, line in (("best", "-"), ("enough", style.DASHED)):
        mine = df[df["kind"] == kind]
        ends = (np.clip(mine[column].to_numpy(float), low, high) for column in ("low", "high"))
        x = mine["x"].to_numpy(float)
        axes.fill_between(x, *ends, color=STYLES[loss].colour, alpha=0.16, linewidth=0)
        mine = mine[mine["value"].between(low, high)]  # beyond the cells it is extrapolated
        style.line(axes, mine, STYLES[loss], linestyle=line)
    axes.set_xscale("log")
    axes.set_xlim(table.columns.min() / 1.15, table.columns.max() * 1.15)
    style.examples_axis(axes, sorted(set(cells["x"].astype(float))))
    return shades


surface = Plot("surface", data, draw)
