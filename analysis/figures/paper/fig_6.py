"""Fig. 6: which negatives matter: quality, bias and logits by kept negatives (paper Sec. 4.8).

Cells, by their fields: `loss.pairs.kind` = negatives, by `loss.pairs.keep` and `.per_positive`,
with a budget of examples; the unmasked sigmoid cells equal in all else; and "matched pairs", those
with keep = hard that differ from the others in their budget, `budget.pairs`.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.style import STYLES
from analysis.figures.plot.ticks import FittingLocator, every_other
from analysis.select import panels
from analysis.stats.intervals import ASSUMPTION

SERIES = {
    "all": "no mask",
    "random": "random",
    "hard": "hardest",
    "easy": "easiest",
    panels.MATCHED: "hardest, matched",
}
LOGITS = {
    "train/pos_logit_mean": "positives",
    "train/neg_logit_mean": "all negatives",
    "train/kept_logit_mean": "kept negatives",
}
LABELS = {
    "train/b": "learned bias b\nat the end",
    **{name: f"mean logit,\n{words}" for name, words in LOGITS.items()},
}


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel and metric are the quantity, series what is kept ("all" is unmasked), x the negatives
    per positive."""
    panel = panels.compositions(inputs.cells)
    matched = panels.matched_pairs(inputs.cells, panel)
    if len(matched.cells):  # a series of its own, not another configuration that is left out
        panel = panels.compositions(inputs.cells[~inputs.cells["id"].isin(matched.cells["id"])])
    metric = inputs.quality_of(panel.cells)
    keep, ratio = panels.AXES_PAIRS
    done = pd.concat([panel.done, matched.done]) if len(matched.done) else panel.done
    ratios = done[ratio].where(done[keep] != "all", done["batch_size"] - 1)
    done = done.assign(series=done[keep], x=ratios)
    names = (metric, "train/b", *LOGITS)
    rows = [row for name in names for row in points.our_points(done, name, name, inputs.read_items)]
    missing = [f"{name} in every record" for name in names if len(done) and name not in done]
    title = f"B = {panel.cells['batch_size'].iloc[0]}; {panels.title(panel)}" if rows else ""
    used = [panel, matched]
    table = points.make_table(rows, panels=used, missing=missing, title=title)
    table.attrs["metric"] = metric
    return table


def draw(df: pd.DataFrame) -> StudyFigure:
    """Quality, learned bias at the end, and mean logits, against the ratio of the batch."""
    words = f"Means over {points.count_seeds(df)}."
    if df["low"].notna().any():
        words += f" Bars: 95 % interval of the mean, {ASSUMPTION}."
    metric = next(name for name in df["panel"] if name.startswith("eval/"))
    labels = {metric: style.metric_label(metric), **LABELS}
    shown = {name: label for name, label in labels.items() if (df["panel"] == name).any()}
    present = [name for name in SERIES if (df["series"] == name).any()]
    lone = {"all", panels.MATCHED}
    columns = layout.arrange(len(shown), wide=3, narrow=2)
    fig, every = layout.make_figure(
        df,
        title="Batch composition: which negatives matter",
        caption=[words, *_out_of_scale(df), "The paper prints no numbers for its Fig. 6."],
        columns=columns,
        heights=1.65,
        legend=[
            STYLES[name].handle(SERIES[name], **({"linestyle": ""} if name in lone else {}))
            for name in present
        ],
    )
    for axes, (name, label) in zip(every, shown.items(), strict=True):
        mine = df[df["panel"] == name]
        if name in LOGITS:
            # The easiest negatives drive the logits far from all the others.
            _draw_quantity(axes, mine[mine["series"] != "easy"])
            axes.set_ylim(axes.get_ylim())
        _draw_quantity(axes, mine)
        axes.set_ylabel(label)
        _ratio_axis(axes, sorted(df["x"].unique()))
    layout.hide_inner_x_labels(every, columns)
    return fig


def _out_of_scale(df: pd.DataFrame) -> list[str]:
    """Where the line of the easiest negatives leaves the panels of logits."""
    easy = df[(df["series"] == "easy") & (df["kind"] == "mean")]
    parts = []
    for name, words in LOGITS.items():
        values = easy.loc[easy["panel"] == name, "value"]
        if len(values):
            ends = dict.fromkeys(f"{end:.0f}" for end in (values.min(), values.max()))
            parts.append(f"{words} {' to '.join(ends)}")
    return (
        [f"Logits with the easiest are partly out of scale: {', '.join(parts)}."] if parts else []
    )


def _draw_quantity(axes: Axes, df: pd.DataFrame) -> None:
    unmasked = style.means(df[df["series"] == "all"])
    for series in SERIES:
        mine, look = df[df["series"] == series], STYLES[series]
        means = style.means(mine)
        if not len(means):
            continue
        if series not in ("all", panels.MATCHED):  # from the unmasked batch on, as in the paper
            path = pd.concat([unmasked, means]) if len(unmasked) else means
            style.line(axes, path.sort_values("x", ascending=False), look)
        style.bars(axes, means, look)
        size = 7 if series == "all" else 4.0
        style.line(axes, means, look, zorder=3, linestyle="", marker=look.marker, markersize=size)


def _ratio_axis(axes: Axes, ratios: list[float]) -> None:
    """From the whole batch on the left to few negatives on the right, as in the paper."""
    axes.set_xscale("log")
    axes.set_xlim(max(ratios) * 1.35, min(ratios) / 1.35)
    axes.set_xlabel("pos. : neg. pairs")
    axes.xaxis.set_major_locator(FittingLocator(every_other(ratios[::-1]), _ratio_label))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: _ratio_label(ratio)))
    axes.minorticks_off()


def _ratio_label(ratio: float) -> str:
    return f"1:{_format_ratio(ratio)}"


def _format_ratio(ratio: float) -> str:
    """As the paper writes them: 16k, 1.6k, 164, 16, 1.6."""
    if ratio >= 1000:
        return f"{ratio / 1000:.2g}k"
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


fig_6 = Plot("fig_6", data, draw)
