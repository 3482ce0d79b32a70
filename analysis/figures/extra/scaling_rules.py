"""Points lost to tuning there by settings that rules carry from another batch size.

Cells: see `analysis.select.scaling_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.claims.scaling_rules import LITTLE, Key, points_lost, scores_by_rule
from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.style import LOSSES, STYLES
from analysis.records.scores import Score
from analysis.select.deciding import FEWEST_STEPS
from analysis.select.panels import Panel
from analysis.select.scaling_rules import TUNED
from analysis.stats.intervals import ASSUMPTION, Interval, group_means

GREY: dict[str, Any] = {"color": style.GREY, "linewidth": 0.7, "zorder": 0}


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is the batch size with its steps, series the loss, x the rule in words, id its number
    from the top, value the points lost, n the seeds. Kind "mean" alone."""
    scores, starts = scores_by_rule(inputs.cells, inputs.quality)
    means = group_means(scores, read_items=inputs.read_items)
    lost = _compared(points_lost(means, scores), scores)
    words = list(dict.fromkeys(str(rule) for _, rule, _, _ in sorted(lost, key=_order)))
    rows = []
    for key in sorted(lost, key=lambda key: (key[2], key[3], _order(key))):
        loss, rule, size, examples = key
        one = lost[key]
        rows.append(
            {"panel": f"B = {style.format_size(size)}, {examples // size:,} steps"}
            | {"source": "ours", "series": loss, "kind": "mean", "x": str(rule)}
            | {"value": one.estimate, "low": one.low, "high": one.high, "n": len(scores[key])}
            | {"id": str(words.index(str(rule))), "metric": inputs.quality}
        )
    ids = {cell for own in scores.values() for score in own for _, cell in score.cells}
    used = inputs.cells[inputs.cells["id"].isin(ids)] if ids else inputs.cells.iloc[:0]
    start = " and ".join(f"B = {style.format_size(at)}" for at in starts)
    return points.make_table(
        rows,
        panels=[Panel(cells=used, axes=())],
        title=f"tuned at {start}" if starts else "",
        why="no rate tuned at one batch size was run at another whose rates were searched too",
    )


def _compared(
    lost: Mapping[Key, Interval], scores: Mapping[Key, list[Score]]
) -> dict[Key, Interval]:
    """Those at batch sizes and budgets where some rule has cells of its own."""
    places = {
        (size, examples)
        for (loss, _, size, examples), own in scores.items()
        if own is not scores[loss, TUNED, size, examples]
    }
    return {key: one for key, one in lost.items() if key[2:] in places}


def _order(key: Any) -> tuple[Any, ...]:
    rule = key[1]
    alone = rule.changed == 1
    return (rule.changed, not alone and rule.fitted, rule.exponent or 0.0, str(rule))


def draw(df: pd.DataFrame) -> StudyFigure:
    """A panel for each batch size and budget, a row for each rule, side by side the losses."""
    names = list(dict.fromkeys(df["panel"]))
    rules = df.assign(row=df["id"].astype(int)).drop_duplicates("row").set_index("row")["x"]
    quality = style.metric_label(df["metric"].iloc[0]).replace(" (%)", "").replace("\n", " ")
    columns = layout.arrange(len(names), wide=3)
    fig, every = layout.make_figure(
        df,
        title="Settings tuned at one batch size, carried to others",
        caption=[
            f"Points of {quality} that each rule loses to the learning rate tuned at the batch "
            "size itself, with beta2 and decay kept. B^a: a fitted to a search; b2, decay: kept "
            f"as half-life and time scale in examples. Bars: 95 % interval, {ASSUMPTION}; a point "
            f"on zero without one is the tuned rate. Dotted: {LITTLE:g} points, which count as "
            f"little. Grey: fewer than {FEWEST_STEPS} steps, which decides nothing. {style.CUT}"
        ],
        columns=columns,
        heights=0.4 + 0.19 * len(rules),
        legend=[STYLES[loss].handle(loss, linestyle="") for loss in LOSSES],
        align=False,
    )
    for axes, name in zip(every, names, strict=True):
        _draw_rules(axes, df[df["panel"] == name], len(rules))
        axes.set_yticks(range(len(rules)), rules.sort_index())
        axes.set_title(name, loc="left")
        axes.set_xlabel("points lost")
    layout.share_y(every, columns)
    return fig


def _draw_rules(axes: Axes, df: pd.DataFrame, count: int) -> None:
    axes.axvline(0, color="black", linewidth=0.8, zorder=0)
    axes.axvline(LITTLE, linestyle=style.DOTTED, **GREY)
    for loss, nudge in zip(LOSSES, (-0.16, 0.16), strict=True):
        look, mine = STYLES[loss], df[df["series"] == loss]
        y = (mine["id"].astype(int) + nudge).tolist()
        marks: dict[str, Any] = {"color": look.colour, "marker": look.marker, "linestyle": ""}
        axes.plot(mine["value"].tolist(), y, markersize=3.5, **marks)
        for at, low, high in zip(y, mine["low"], mine["high"], strict=True):
            axes.plot([low, high], [at, at], color=look.colour, linewidth=0.9)
    low, high = min(df["value"].min(), 0.0), max(df["value"].max(), LITTLE)
    room = max(0.3 * (high - low), 1.0)
    left, right = axes.get_xlim()
    axes.set_xlim(max(left, low - room), min(right, high + room))
    axes.set_ylim(count - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    steps = int(df["panel"].iloc[0].rpartition(", ")[2].removesuffix(" steps").replace(",", ""))
    if steps < FEWEST_STEPS:
        axes.set_facecolor("#f1f1f1")


scaling_rules = Plot("scaling_rules", data, draw)
