"""Fig. 6: which negatives matter: quality, bias and logits by kept negatives (paper Sec. 4.8).

Cells, by their fields: `loss.pairs.kind` = negatives, by `loss.pairs.keep` and `.per_positive`,
with a budget of examples; the unmasked sigmoid cells equal in all else; and "matched pairs", those
with keep = hard that differ from the others in their budget, `budget.pairs`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.style import STYLES
from analysis.select import panels
from analysis.stats.intervals import ASSUMPTION

SERIES = {
    "all": "no mask",
    "random": "random",
    "hard": "hardest",
    "easy": "easiest",
    panels.MATCHED: "hardest, matched",
}
LOGITS: dict[str, tuple[str, dict[str, Any]]] = {
    "train/pos_logit_mean": ("positives", {"linestyle": "-", "linewidth": 1.6}),
    "train/neg_logit_mean": ("all negatives", {"linestyle": "-", "linewidth": 0.8}),
    "train/kept_logit_mean": ("kept negatives", {"linestyle": (0, (4, 2)), "linewidth": 0.8}),
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
    rows = [row for name in names for row in points.our_points(done, name, name)]
    missing = [f"{name} in every record" for name in names if len(done) and name not in done]
    title = f"B = {panel.cells['batch_size'].iloc[0]}; {panels.title(panel)}" if rows else ""
    used = [panel, matched]
    table = points.make_table(rows, panels=used, missing=missing, title=title)
    table.attrs["metric"] = metric
    return table


@style.styled
def draw(df: pd.DataFrame) -> Figure:
    """Quality, learned bias at the end, and mean logits, against the ratio of the batch."""
    seeds = df[df["kind"] == "seed"]["seed"].nunique()
    words = f"Small dots: {seeds} seed{'s' if seeds != 1 else ''}."
    if seeds > 1:
        words += f" Bars: 95 % interval of the mean, {ASSUMPTION}."
    fig, (quality, bias, logits) = layout.make_figure(
        heights=[1.9, 1.6, 2.3],
        title="Batch composition: which negatives matter",
        caption=layout.caption_of(
            df, f"{words} The paper prints no numbers for this figure (its Fig. 6)."
        ),
        footer=df.attrs.get("provenance", ""),
    )
    metric = next(name for name in df["panel"] if name.startswith("eval/"))
    present = {name: label for name, label in SERIES.items() if (df["series"] == name).any()}
    handles = [
        STYLES[name].handle(label, **({"linestyle": ""} if name == "all" else {}))
        for name, label in present.items()
    ]
    _draw_quantity(quality, df[df["panel"] == metric])
    quality.set_ylabel(style.metric_label(metric))
    layout.legend_above(quality, handles, columns=3 if panels.MATCHED in present else 4)
    _draw_quantity(bias, df[df["panel"] == "train/b"])
    bias.set_ylabel("learned bias b\nat the end")
    for name, (_, line) in LOGITS.items():
        _draw_quantity(logits, df[df["panel"] == name], **line)
    logits.set_ylabel("mean logit")
    lines = [Line2D([], [], color="black", label=name, **line) for name, line in LOGITS.values()]
    layout.legend_above(logits, lines, columns=3)
    logits.set_xlabel("positive : negative pairs in the loss")
    for axes in (quality, bias, logits):
        _ratio_axis(axes, sorted(df["x"].unique()))
    return fig


def _draw_quantity(axes: Axes, df: pd.DataFrame, **line: Any) -> None:
    unmasked = style.means(df[df["series"] == "all"])
    for series in SERIES:
        mine, look = df[df["series"] == series], STYLES[series]
        means = style.means(mine)
        if not len(means):
            continue
        # Every series starts from the unmasked batch, as in the paper.
        path = pd.concat([unmasked, means]) if series != "all" and len(unmasked) else means
        style.line(axes, path.sort_values("x", ascending=False), look, **line)
        style.bars(axes, means, look)
        style.dots(axes, mine, look, size=2.2)
        size = 7 if series == "all" else 4.5
        style.line(axes, means, look, zorder=3, linestyle="", marker=look.marker, markersize=size)


def _ratio_axis(axes: Axes, ratios: list[float]) -> None:
    """From the whole batch on the left to few negatives on the right, as in the paper."""
    axes.set_xscale("log")
    axes.set_xlim(max(ratios) * 1.35, min(ratios) / 1.35)
    # Two ratios closer than an eighth of the axis' decades would print over each other.
    gap = max(0.12 * np.log10(max(ratios) / min(ratios)), 1e-9)
    ticks: list[float] = []
    for ratio in reversed(ratios):
        if not ticks or np.log10(ticks[-1] / ratio) >= gap:
            ticks.append(ratio)
    axes.set_xticks(ticks, [f"1:{_format_ratio(ratio)}" for ratio in ticks])
    axes.minorticks_off()


def _format_ratio(ratio: float) -> str:
    """As the paper writes them: 16k, 1.6k, 164, 16, 1.6."""
    if ratio >= 1000:
        return f"{ratio / 1000:.2g}k"
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


fig_6 = Plot("fig_6", data, draw)
