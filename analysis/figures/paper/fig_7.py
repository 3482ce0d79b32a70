"""Fig. 7: robustness to corrupted training data (paper Sec. 4.10, App. E).

Cells, by their fields: sigmoid with all pairs and softmax that differ in `data.corruption.image`,
`.text`, `.alignment` and the loss only, at every batch size with corrupted cells. A cell belongs to
the panel of the probabilities that are above zero (all equal), clean cells to every panel.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import SeriesStyle
from analysis.select import panels
from analysis.stats.intervals import ASSUMPTION, by_group, group_means
from analysis.stats.spikes import ENDS

FIELDS = [f"data.corruption.{name}" for name in panels.CORRUPTIONS]
PANELS = {
    "Image": ("image",),
    "Text": ("text",),
    "Batch": ("alignment",),
    "Image & Text": ("image", "text"),
    "Image, Text & Batch": ("image", "text", "alignment"),
}
LEAD = "lead"
REDRAW, ANEW = "data.corruption.resample_each_epoch", ", drawn anew"
PAPER_SAYS = (
    "the paper prints no numbers; it says that sigmoid stays above softmax, increasingly with p"
)


def data(inputs: Inputs) -> pd.DataFrame:
    """The points of the five panels, see `points`; x is the probability of corruption.

    Series are the losses, and "lead", sigmoid minus softmax in points, paired by seed; each is
    followed by the batch size where there are several. Where a study corrupts both once and anew at
    each visit, the latter have series of their own. Clean cells belong to both.
    """
    cells = inputs.cells
    if "loss.kind" not in cells or not set(FIELDS) & set(cells):
        return points.make_table([])
    cells = cells.assign(**{field: panels.numeric(cells, field) for field in FIELDS})
    pairs = cells["loss.pairs.kind"] if "loss.pairs.kind" in cells else cells["loss.kind"]
    cells = cells[(cells["loss.kind"] == "softmax") | (pairs == "all")]
    cells = cells[panels.numeric(cells, ENDS) == 0]
    sizes = sorted(set(cells.loc[(cells[FIELDS] > 0).any(axis=1), "batch_size"].dropna()))
    found = {
        size: panels.select(
            cells[cells["batch_size"] == size],
            ("loss.kind", *FIELDS),
            free=("data.corruption.",),
            by_loss=("loss.", "optimizer."),
        )
        for size in sizes
    }
    found = {
        size: panel for size, panel in found.items() if (panel.cells[FIELDS] > 0).any(axis=None)
    }
    if not found:
        return points.make_table([])
    metric = inputs.quality_of(pd.concat([panel.done for panel in found.values()]))
    return points.make_table(
        [
            row
            for size, panel in found.items()
            for row in _rows(
                panel.done, metric, inputs, f", B = {int(size)}" if len(found) > 1 else ""
            )
        ],
        panels=found.values(),
        missing=[m for panel in found.values() for m in points.without_metric(panel, metric)],
        notes=[PAPER_SAYS],
        title="; ".join(points.describe_panel(panel) for panel in found.values()),
    )


def _rows(done: pd.DataFrame, metric: str, inputs: Inputs, size: str) -> list[Row]:
    """The points of one batch size; `size` is its part of the names of its series."""
    done = done.assign(series=done["loss.kind"] + size)
    # Clean cells of other seeds have no corrupted cell to be compared with.
    corrupted = (done[FIELDS] > 0).any(axis=1)
    done = done[done["seed"].isin(done.loc[corrupted, "seed"])]
    corrupted, anew = (done[FIELDS] > 0).any(axis=1), panels.numeric(done, REDRAW) > 0
    if (anew & corrupted).any() and (~anew & corrupted).any():
        redrawn = done[anew | ~corrupted]
        redrawn = redrawn.assign(series=redrawn["series"] + ANEW)
        done = pd.concat([done[~anew | ~corrupted], redrawn])
    rows: list[Row] = []
    for name, parts in PANELS.items():
        inside = [f"data.corruption.{part}" for part in parts]
        outside = [field for field in FIELDS if field not in inside]
        own = (done[inside].nunique(axis=1) == 1) & (done[outside] == 0).all(axis=1)
        p = done.loc[own, inside[0]]
        if (p > 0).any():
            mine = done[own].assign(x=p)
            mine = mine[mine.groupby("series")["x"].transform("max") > 0]
            rows += points.our_points(mine, name, metric, inputs.read_items)
            for suffix in ("", ANEW):
                rows += _lead(mine, name, metric, size + suffix)
    return rows


def _lead(cells: pd.DataFrame, panel: str, metric: str, suffix: str) -> list[Row]:
    """Sigmoid minus softmax by p, paired by seed."""
    losses = [f"{loss}{suffix}" for loss in style.LOSSES]
    mine = points.with_metric(cells[cells["series"].isin(losses)], metric)
    table = mine.pivot_table(index=["x", "seed"], columns="series", values=metric)
    if not set(losses) <= set(table):
        return []
    pairs = (table[losses[0]] - table[losses[1]]).dropna().rename("lead").reset_index()
    common = {"panel": panel, "source": "ours", "series": LEAD + suffix, "metric": metric}
    rows: list[Row] = [
        common | {"kind": "seed", "x": x, "value": lead, "seed": seed}
        for x, seed, lead in pairs[["x", "seed", "lead"]].itertuples(index=False, name=None)
    ]
    pooled = group_means(by_group(pairs, ["x"], "lead"))
    for x in sorted(pooled.means):
        mean = pooled.mean(x)
        numbers = {"value": mean.estimate, "low": mean.low, "high": mean.high}
        rows.append(common | {"kind": "mean", "x": x, "n": pooled.counts[x]} | numbers)
    return rows


def draw(df: pd.DataFrame) -> StudyFigure:
    """The lead of sigmoid over p, five panels on one scale."""
    df = df[df["series"].str.startswith(LEAD)]
    names = [name for name in PANELS if (df["panel"] == name).any()]
    looks = _looks(df["series"].unique())
    columns = layout.arrange(len(names), wide=5, narrow=3)
    words = "Lead: sigmoid minus softmax at p, paired by seed; above zero sigmoid is ahead."
    if df["low"].notna().any():
        words += f" Bars: 95 % interval, {ASSUMPTION}."
    fig, every = layout.make_figure(
        df,
        title="Fig. 7: robustness to corrupted training data",
        caption=[words],
        columns=columns,
        heights=1.7,
        legend=[look.handle(_label(series)) for series, look in looks.items()],
    )
    step = 0.024 if len(looks) > 1 else 0.0
    for axes, name in zip(every, names, strict=True):
        axes.axhline(0, color="black", linewidth=0.8)
        for i, (series, look) in enumerate(looks.items()):
            mine = df[(df["panel"] == name) & (df["series"] == series)]
            side = step * (i / max(1, len(looks) - 1) - 0.5)
            mine = mine.assign(x=mine["x"].astype(float) + side)
            style.bars(axes, style.means(mine), look)
            style.line(axes, style.means(mine), look, marker=look.marker)
        axes.xaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.margins(x=0.12)
        axes.set_xlabel("p")
        axes.set_ylabel("lead (points)")
        axes.set_title(name.replace(", Text", ",\nText").replace(" & T", "\n& T"), loc="left")
    layout.share_y(every, columns)
    layout.hide_inner_labels(every, columns)
    return fig


def _looks(series: Iterable[str]) -> dict[str, SeriesStyle]:
    """A colour and a marker for each batch size; what is drawn anew has a dashed line."""
    series = sorted(series, key=lambda name: (name.endswith(ANEW), _size(name)))
    sizes = sorted({_size(name) for name in series})
    if len(sizes) > 1:
        by_size = style.batch_size_styles(sizes)
    else:
        by_size = {sizes[0]: SeriesStyle(colour=style.BLACK, marker="o")}
    anew = SeriesStyle(colour=style.ROSE, marker="s", line=style.DASHED)
    return {name: anew if name.endswith(ANEW) else by_size[_size(name)] for name in series}


def _size(series: str) -> int:
    """The batch size in the name of a series; 0 where there is one alone."""
    size = series.removesuffix(ANEW).partition(" B = ")[2]
    return int(size or 0)


def _label(series: str) -> str:
    how = "drawn anew at each visit" if series.endswith(ANEW) else "corrupted once"
    return f"B = {size:,}, {how}" if (size := _size(series)) else how


fig_7 = Plot("fig_7", data, draw)
