"""A small batch with a queue of stored negatives, between the small batch alone and the large one.

Cells: see `analysis.select.queues`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import pandas as pd

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import STYLES, SeriesStyle
from analysis.select import panels
from analysis.select import queues as selection
from analysis.select.panels import QUEUE
from analysis.select.queues import LARGE, MATCH, ROLE, SMALL, STORED
from analysis.stats.intervals import ASSUMPTION

EQUAL: dict[Literal["examples", "flops"], str] = {
    "examples": "equal examples",
    "flops": "equal FLOPs",
}
NAMES = {SMALL: "B alone", STORED: "B with a queue of Q", LARGE: "a batch of B + Q"}
MARKERS = {SMALL: "v", STORED: "o", LARGE: "^"}
APART = 0.13  # between the marks of one match


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is the loss and what is equal, x the match ("64 + 192"), series the role.

    Rows of kind "examples" hold those of each point, where they differ.
    """
    rows: list[Row] = []
    used, missing, notes = [], [], []
    for equal, words in EQUAL.items():
        panel = inputs.select(selection.matches, equal=equal)
        for loss, cells in panel.done.groupby("loss.kind"):
            name = f"{loss}, {words}"
            done = cells.assign(series=cells[ROLE].map(NAMES), x=cells[MATCH].map(_name))
            rows += points.our_points(done, name, inputs.quality, inputs.read_items)
            if equal == "flops":
                seen = done.groupby(["x", "series"])["examples"].median()
                notes.append(f"{name}: {_examples(seen)}")
        used.append(panel)
        missing += points.without_metric(panel, inputs.quality)
    whole = [panel.cells for panel in used if len(panel.cells)]
    title = ""
    if whole:
        first = whole[0].drop_duplicates("id")
        title = panels.title(panels.Panel(cells=first[first[QUEUE] == 0], axes=selection.AXES))
    return points.make_table(rows, panels=used, missing=missing, notes=notes, title=title)


def draw(df: pd.DataFrame) -> StudyFigure:
    """A panel for each loss and what is equal; in it three marks for each match."""
    names = list(dict.fromkeys(df["panel"]))
    caption = (
        f"Means over {points.count_seeds(df)}; bars: 95 % interval, {ASSUMPTION}. A batch of B "
        "with a queue of Q meets as many pairs per example as one of B + Q."
    )
    grey = {role: SeriesStyle(colour=style.GREY, marker=MARKERS[role], line="") for role in NAMES}
    columns = layout.arrange(len(names), wide=3)
    fig, every = layout.make_figure(
        df,
        title="A queue beside the batch that it stands for",
        caption=[caption],
        columns=columns,
        heights=1.9,
        legend=[look.handle(NAMES[role], **_face(role)) for role, look in grey.items()],
    )
    for axes, name in zip(every, names, strict=True):
        mine = df[df["panel"] == name]
        matches = sorted(dict.fromkeys(mine["x"]), key=_sizes)
        colour = STYLES[name.partition(",")[0]].colour
        for place, role in enumerate(NAMES):
            look = SeriesStyle(colour=colour, marker=MARKERS[role], line="")
            at = {x: i + (place - 1) * APART for i, x in enumerate(matches)}
            rows = mine[mine["series"] == NAMES[role]]
            rows = rows.assign(x=rows["x"].map(at))
            style.dots(axes, rows, look, size=1.8)
            means = style.means(rows)
            style.bars(axes, means, look)
            style.line(
                axes, means, look, markersize=5.0, zorder=3, marker=look.marker, **_face(role)
            )
        axes.set_xticks(range(len(matches)), [x.replace(" + ", "\n+ ") for x in matches])
        axes.set_xlim(-0.5, len(matches) - 0.5)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("B + Q")
        axes.set_ylabel(style.metric_label(style.means(mine)["metric"].iloc[0]))
        axes.set_title(name, loc="left")
    layout.share_y(every, columns)
    layout.hide_inner_labels(every, columns)
    return fig


def _face(role: str) -> dict[str, Any]:
    """Marks of cells without a queue are hollow."""
    return {} if role == STORED else {"markerfacecolor": "white"}


def _name(match: tuple[int, int]) -> str:
    return " + ".join(map(str, match))


def _sizes(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split(" + "))


def _examples(seen: pd.Series) -> str:
    """The examples of each role, by match."""
    by_match: dict[str, dict[str, float]] = {}
    for (match, series), count in seen.items():
        by_match.setdefault(match, {})[series] = count
    return "; ".join(
        f"{match} has "
        + ", ".join(
            f"{style.format_count(by_role.get(name, math.nan))} examples ({name})"
            for name in NAMES.values()
        )
        for match, by_role in sorted(by_match.items(), key=lambda item: _sizes(item[0]))
    )


queues = Plot("queues", data, draw)
