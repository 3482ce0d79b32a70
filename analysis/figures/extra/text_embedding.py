"""Recall by the vocabulary and the bottleneck of a text tower, with t learned or fixed.

Cells: see `analysis.select.text_embedding`.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import STYLES
from analysis.select import text_embedding as selection
from analysis.select.text_embedding import FIXED, PIECES, RANK, T
from analysis.stats.intervals import ASSUMPTION

BY_RANK = "bottleneck"
SERIES = ("sigmoid", "sigmoid, t fixed", "softmax", "softmax, t fixed")


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is a split, x the pieces of the vocabulary, series the loss and whether t is fixed.

    In the panel `BY_RANK` x is the rank of the token embedding, on the first split.
    """
    vocabulary = inputs.select(selection.by_vocabulary)
    bottleneck = inputs.select(selection.by_bottleneck)
    used = [panel for panel in (vocabulary, bottleneck) if len(panel.cells)]
    if not used:
        return points.make_table([])
    rows: list[Row] = []
    done = vocabulary.done
    fixed = done[T].map({FIXED: ", t fixed"}).fillna("") if len(done) else ""
    done = done.assign(x=done[PIECES].astype(int), series=done["loss.kind"] + fixed)
    for split, metric in selection.recalls(done).items():
        rows += points.our_points(done, split, metric, inputs.read_items)
    narrow = bottleneck.done
    recalls = selection.recalls(narrow)
    if len(narrow) and recalls:
        narrow = narrow.assign(x=narrow[RANK].astype(int), series=narrow["loss.kind"])
        rows += points.our_points(narrow, BY_RANK, next(iter(recalls.values())), inputs.read_items)
    return points.make_table(rows, panels=used, title=points.describe_panel(used[0]))


def draw(df: pd.DataFrame) -> StudyFigure:
    """A panel for each split by vocabulary, and one by bottleneck."""
    present = [name for name in SERIES if (df["series"] == name).any()]
    names = list(dict.fromkeys(df["panel"]))
    columns = layout.arrange(len(names), wide=2)
    words = [
        "Mean text-to-image recall@1 over languages, by split. Dots: "
        f"{points.count_seeds(df)}; bars: 95 % interval, {ASSUMPTION}."
    ]
    if any("fixed" in name for name in present):
        words.append("t fixed: t and b stay at their initial values.")
    if BY_RANK in names:
        split = str(df.loc[df["panel"] == BY_RANK, "metric"].iloc[0]).split("/")[-2]
        words.append(
            "Bottleneck: the token embedding is a product of this rank, with sigmoid on "
            f"{split.replace('_', ' ')}; the largest is without one."
        )
    fig, every = layout.make_figure(
        df,
        title="Vocabulary, bottleneck and temperature of a text tower in many languages",
        caption=words,
        columns=columns,
        heights=1.9,
        legend=[STYLES[name].handle(name) for name in present],
    )
    for axes, name in zip(every, names, strict=True):
        mine = df[df["panel"] == name]
        for series in present:
            rows, look = mine[mine["series"] == series], STYLES[series]
            style.dots(axes, rows, look)
            style.line(axes, style.means(rows).sort_values("x"), look)
            style.bars(axes, style.means(rows), look)
        axes.set_title(name, loc="left")
        axes.set_ylabel("recall@1 (%)")
        _count_axis(axes, sorted({int(x) for x in mine["x"]}))
        axes.set_xlabel("rank of the embedding" if name == BY_RANK else "pieces")
    return fig


def _count_axis(axes: Axes, values: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(values, [style.format_count(value) for value in values])
    axes.minorticks_off()


text_embedding = Plot("text_embedding", data, draw)
