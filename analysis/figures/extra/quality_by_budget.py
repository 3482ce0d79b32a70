"""Quality by batch size with one line for each budget of examples (paper Sec. 4.1, 4.2).

Cells, by their fields: those of Figs. 2 and 3 at every budget, see `panels.by_budget`. The paper's
are its Tables 8 and 5.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.batch_size import TOWERS
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import LOSSES
from analysis.paper.reference import reference
from analysis.select import panels
from analysis.select.benchmarks import benchmark
from analysis.stats.intervals import ASSUMPTION

BUDGETS = {
    **{"450M": 450 * 10**6, "900M": 900 * 10**6},
    **{"3B": 3 * 10**9, "9B": 9 * 10**9, "18B": 18 * 10**9},
}
TABLES = {"cached": "Table 8", "vit": "Table 5"}
FEWEST = 3  # batch sizes of a budget


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is the image tower and the loss, series the budget in examples, x the batch size.

    A row of kind "best" is the batch size with the highest mean of a budget. A budget with fewer
    than `FEWEST` batch sizes has no best.
    """
    rows: list[Row] = []
    used, missing = [], []
    for image, tower in TOWERS.items():
        if not len(inputs.cells):
            rows += _printed(tower, TABLES[image])
            continue
        budgets = [
            panel
            for panel in inputs.select(panels.by_budget, image=image).values()
            if panel.cells["batch_size"].nunique() >= FEWEST
        ]
        if len(budgets) < 2:
            continue
        used += budgets
        done = pd.concat([panel.done for panel in budgets])
        metric = inputs.quality_of(done)
        done = done.assign(series=done["budget.examples"], x=done["batch_size"])
        for loss in LOSSES:
            rows += points.our_points(
                done[done["loss.kind"] == loss], f"{tower}, {loss}", metric, inputs.read_items
            )
        missing += [name for panel in budgets for name in points.without_metric(panel, metric)]
    best: dict[tuple[str, ...], Row] = {}
    for row in rows:
        if row["kind"] == "mean":
            key = (row["panel"], row["series"])
            if key not in best or row["value"] > best[key]["value"]:
                best[key] = row
    rows += [row | {"kind": "best"} for row in best.values()]
    title = panels.title(used[-1]).partition("; ")[0] if used else ""
    why = f"it needs two budgets of examples with {FEWEST} batch sizes"
    return points.make_table(rows, panels=used, missing=missing, title=title, why=why)


def _printed(tower: str, table: str) -> list[Row]:
    """The paper's numbers: the panel of the table names the examples, such as "450M"."""
    rows: list[Row] = []
    printed = reference(table)
    for loss in LOSSES:
        mine = printed[printed["series"].str.lower() == loss]
        budgets = [BUDGETS[panel.split()[0]] for panel in mine["panel"]]
        rows += points.paper_points(
            mine, f"{tower}, {loss}", series=budgets, x=mine["x"].astype(int)
        )
    return rows


def draw(df: pd.DataFrame) -> StudyFigure:
    """A panel for each tower and loss, a line for each budget; the best batch size is ringed."""
    names = list(dict.fromkeys(df["panel"]))
    words = "Numbers at the lines: examples seen. Rings: the batch size with the highest mean."
    if df["low"].notna().any():
        words += f" Bars: 95 % interval of the mean, {ASSUMPTION}."
    columns = layout.arrange(len(names), wide=len(LOSSES))
    fig, every = layout.make_figure(
        df,
        title="Quality by batch size at each number of examples seen",
        caption=[words],
        columns=columns,
        heights=1.9,
    )
    for axes, name in zip(every, names, strict=True):
        mine = df[df["panel"] == name]
        _draw_budgets(axes, mine)
        axes.set_title(name, loc="left")
        axes.set_ylabel(quality_label(mine["metric"].iloc[0]))
    for tower in TOWERS.values():
        own = [axes for axes, name in zip(every, names, strict=True) if name.startswith(tower)]
        layout.share_y(own, [1] * len(own))
        layout.share_limits(own, "x")
    layout.hide_inner_labels(every, columns)
    return fig


def quality_label(metric: str) -> str:
    """The axis label of a study's quality, or of the paper's, which is on ImageNet."""
    named = style.is_percent(metric) and not benchmark(metric)
    return style.metric_label(metric) if named else "zero-shot top-1 (%)\non ImageNet"


def _draw_budgets(axes: Axes, df: pd.DataFrame) -> None:
    budgets = sorted({float(budget) for budget in df["series"]})
    looks = style.batch_size_styles([int(budget) for budget in budgets])
    hollow = {"markerfacecolor": "white"} if (df["source"] == "paper").all() else {}
    sizes = sorted({float(x) for x in df["x"]})
    for budget, look in zip(budgets, looks.values(), strict=True):
        mine = df[df["series"].astype(float) == budget]
        means = style.means(mine).sort_values("x")
        style.bars(axes, means, look)
        style.line(axes, means, look, marker=look.marker, markersize=3.5, **hollow)
        best = mine[mine["kind"] == "best"]
        ring: dict[str, Any] = {"marker": "o", "markersize": 8, "markerfacecolor": "none"}
        style.line(axes, best, look, linestyle="", clip_on=False, **ring)
        first = float(means["x"].iloc[0]), float(means["value"].iloc[0])
        words: dict[str, Any] = {"va": "center", "ha": "right", "fontsize": style.SMALL}
        words |= {"xytext": (-5, 0), "textcoords": "offset points", "color": "#333333"}
        axes.annotate(style.format_count(budget), first, **words)
    style.batch_axis(axes, sizes)
    span = sizes[-1] / sizes[0]
    axes.set_xlim(sizes[0] / span**0.17, sizes[-1] * span**0.05)


quality_by_budget = Plot("quality_by_budget", data, draw)
