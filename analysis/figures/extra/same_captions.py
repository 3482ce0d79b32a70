"""Quality by batch size for what pairs with equal captions, or of one class, are: negatives, left
out, or positives.

Cells: see `analysis.select.same_captions`.
"""

from __future__ import annotations

import pandas as pd

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import STYLES, SeriesStyle
from analysis.select import same_captions as selection
from analysis.select.deciding import steps_by_size
from analysis.select.same_captions import NEGATIVE, SAME, WAYS
from analysis.stats.intervals import ASSUMPTION, by_group, group_means

QUALITY, GAIN = "quality", "gain over negatives"
COUNT = "train/same_captions"
NAMES = {
    "negative": "negatives",
    "masked": "left out",
    "positive": "positives",
    "masked by class": "left out, by class",
    "positive by class": "positives, by class",
}
LOOKS = {
    "negatives": STYLES["sigmoid"],
    "left out": SeriesStyle(colour=style.GREEN, marker="s", line=style.DASHED),
    "positives": SeriesStyle(colour=style.WINE, marker="^", line=style.DOTTED),
    "left out, by class": SeriesStyle(colour=style.TEAL, marker="D", line=style.DASH_DOT),
    "positives, by class": SeriesStyle(colour=style.ROSE, marker="v", line=(0, (3, 1, 1, 1))),
}


def data(inputs: Inputs) -> pd.DataFrame:
    """x is the batch size, series what equal captions are. Panel "gain over negatives": the value
    minus that with negatives, with its interval."""
    panel = inputs.select(selection.by_size)
    if not len(panel.cells):
        return points.make_table([])
    done = panel.done.assign(series=panel.done[SAME].map(NAMES), x=panel.done["batch_size"])
    rows = points.our_points(done, QUALITY, inputs.quality, inputs.read_items)
    rows += _gains(inputs, done)
    # Also those with few steps decide: at one batch size all take as many.
    steps = [f"{n:,} at {style.format_size(b)}" for b, n in steps_by_size(done).items()]
    notes = [f"steps: {', '.join(steps)}"]
    of_captions = ~done[SAME].str.endswith(selection.BY_CLASS)
    counts = done[of_captions].groupby("batch_size")[COUNT].mean().dropna() if COUNT in done else {}
    if len(counts):
        each = ", ".join(
            f"{count / b:.3g} at {style.format_size(b)}" for b, count in counts.items()
        )
        notes.append(f"other examples of the batch with the caption of an example: {each}")
    return points.make_table(
        rows,
        panels=[panel],
        missing=points.without_metric(panel, inputs.quality),
        notes=notes,
        title=points.describe_panel(panel),
    )


def _gains(inputs: Inputs, done: pd.DataFrame) -> list[Row]:
    groups = by_group(done, list(selection.AXES), inputs.quality)
    means = group_means(groups, read_items=inputs.read_items)
    common = {"panel": GAIN, "source": "ours", "kind": "mean", "metric": inputs.quality}
    rows = []
    for size, way in sorted(means.means):
        if way in WAYS and (size, NEGATIVE) in means.means:
            gain = means.contrast({(size, way): 1.0, (size, NEGATIVE): -1.0})
            rows.append(
                common
                | {"series": NAMES[way], "x": size, "n": means.counts[size, way]}
                | {"value": gain.estimate, "low": gain.low, "high": gain.high}
            )
    return rows


def draw(df: pd.DataFrame) -> StudyFigure:
    """Left the quality, right what is gained over taking equal captions as negatives."""
    present = [name for name in LOOKS if (df["series"] == name).any()]
    caption = (
        f"Means over {points.count_seeds(df)}; bars: 95 % interval, {ASSUMPTION}. At one batch "
        "size runs take equal steps over the same examples."
    )
    names = [name for name in (QUALITY, GAIN) if (df["panel"] == name).any()]
    columns = layout.arrange(len(names), wide=2)
    fig, every = layout.make_figure(
        df,
        title="Pairs with equal captions by batch size",
        caption=[caption],
        columns=columns,
        heights=1.9,
        legend=[LOOKS[name].handle(name) for name in present],
    )
    for axes, name in zip(every, names, strict=True):
        mine = df[df["panel"] == name]
        if name == GAIN:
            axes.axhline(0, color="black", linewidth=0.8)
        for series in present:
            rows, look = mine[mine["series"] == series], LOOKS[series]
            style.dots(axes, rows, look, size=1.8)
            style.bars(axes, style.means(rows), look)
            style.line(axes, style.means(rows).sort_values("x"), look, marker=look.marker)
        style.batch_axis(axes, sorted({int(x) for x in mine["x"]}))
        quality = style.metric_label(df["metric"].dropna().iloc[0])
        axes.set_ylabel(quality if name == QUALITY else "gain (points)")
        axes.set_title(name, loc="left")
    layout.hide_inner_x_labels(every, columns)
    return fig


same_captions = Plot("same_captions", data, draw)
