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
from analysis.figures.plot import marks, quality, style
from analysis.select import panels
from analysis.select.fields import TOP1
from analysis.stats.intervals import ASSUMPTION, by_group, pooled_means

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
COLUMNS = ("metric", "series", "what", "negatives_per_positive", "batch_size", "seed", "value")


def data(inputs: Inputs) -> pd.DataFrame:
    """The points of the figure, long: one row per cell or mean, and metric.

    Columns: metric, series ("all" is unmasked, or what is kept), what ("seed", "mean"),
    negatives_per_positive, batch_size, seed, value, low and high (95 %), n (seeds), id.
    """
    panel = panels.compositions(inputs.cells)
    matched = panels.matched_pairs(inputs.cells, panel)
    if len(matched.cells):  # they are no other configuration, but a series of their own
        panel = panels.compositions(inputs.cells[~inputs.cells["id"].isin(matched.cells["id"])])
    metric = inputs.quality_of(panel.cells)
    keep, ratio = panels.AXES_PAIRS
    done = pd.concat([panel.done, matched.done]) if len(matched.done) else panel.done
    done = done.assign(**{ratio: done[ratio].where(done[keep] != "all", done["batch_size"] - 1)})
    rows: list[dict[str, Any]] = []
    for name in (metric, "train/b", *LOGITS):
        known = done[np.isfinite(done[name].astype(float))] if name in done else done.iloc[:0]
        for _, row in known.iterrows():
            point = {"series": row[keep], "negatives_per_positive": row[ratio]}
            rows.append(
                {"metric": name, **point, "what": "seed", "value": row[name]}
                | {"batch_size": row["batch_size"], "seed": row["seed"], "id": row["id"]}
            )
        means = pooled_means(by_group(known, [keep, ratio, "batch_size"], name))
        for key in sorted(means.means):
            value, low, high = means.mean(key)
            point = dict(zip(("series", "negatives_per_positive", "batch_size"), key, strict=True))
            n = {"n": means.counts[key]}
            rows.append(
                {"metric": name, **point, "what": "mean", "value": value, "low": low, "high": high}
                | n
            )
    missing = [*panel.missing(), *(matched.missing() if len(matched.cells) else ())]
    absent = [name for name in (metric, "train/b", *LOGITS) if name not in done]
    missing += [f"{name} in every record" for name in absent if len(done)]
    frame = pd.DataFrame(rows, columns=[*COLUMNS, "low", "high", "n", "id"])
    frame = frame.astype({"seed": "Int64", "n": "Int64"})
    if rows:
        frame.attrs["title"] = panels.title(panel)
        frame.attrs["provenance"] = style.provenance(pd.concat([panel.cells, matched.cells]))
    frame.attrs.update(metric=metric, notes=list(panel.notes), missing=missing)
    return frame


def draw(df: pd.DataFrame) -> Figure:
    """Quality, learned bias at the end, and mean logits, against the ratio of the batch."""
    size = int(df["batch_size"].iloc[0])
    metric = df.attrs.get("metric", TOP1)
    with style.context():
        fig, axes = style.figure(
            heights=[1.9, 1.6, 2.3],
            title="Batch composition: which negatives matter",
            notes=[
                f"B = {size}, series by the negatives kept; {df.attrs.get('title', '')}.",
                *_notes(df),
            ],
            footer=df.attrs.get("provenance", ""),
        )
        _curves(axes[0], df[df["metric"] == metric])
        axes[0].set_ylabel(quality.label(metric))
        style.legend(axes[0], columns=3 if (df["series"] == panels.MATCHED).any() else 4)
        _curves(axes[1], df[df["metric"] == "train/b"])
        axes[1].set_ylabel("learned bias b\nat the end")
        _logits(axes[2], df)
        axes[2].set_xlabel("positive : negative pairs in the loss")
        for one in axes:
            _ratio_axis(one, df)
    return fig


def _curves(axes: Axes, df: pd.DataFrame, **line: Any) -> None:
    x = "negatives_per_positive"
    unmasked = marks.means(df[df["series"] == "all"])
    for series, name in SERIES.items():
        look = style.STYLES[series]
        mine = df[df["series"] == series]
        means = marks.means(mine)
        if not len(means):
            continue
        alone = series == "all"
        # Every series starts from the unmasked batch, as in the paper.
        path = means if alone else pd.concat([unmasked, means] if len(unmasked) else [means])
        marks.line(axes, path.sort_values(x, ascending=False), x, look, **line)
        marks.bars(axes, means, x, look)
        marks.dots(axes, mine, x, look, size=2.2)
        points = {"linestyle": "", "marker": look.marker, "markersize": 7 if alone else 4.5}
        marks.line(axes, means, x, look, zorder=3, **points)
        axes.plot(
            [],
            [],
            color=look.colour,
            marker=look.marker,
            linestyle="" if alone else look.line,
            label=name,
        )


def _logits(axes: Axes, df: pd.DataFrame) -> None:
    lines: dict[str, dict[str, Any]] = {
        "train/pos_logit_mean": {"linestyle": "-", "linewidth": 1.6},
        "train/neg_logit_mean": {"linestyle": "-", "linewidth": 0.8},
        "train/kept_logit_mean": {"linestyle": (0, (4, 2)), "linewidth": 0.8},
    }
    handles = []
    for metric, line in lines.items():
        _curves(axes, df[df["metric"] == metric], **line)
        handles.append(Line2D([], [], color="black", label=LOGITS[metric], **line))
    axes.set_ylabel("mean logit")
    style.legend(axes, handles, columns=3)


def _ratio_axis(axes: Axes, df: pd.DataFrame) -> None:
    """From the whole batch on the left to few negatives on the right, as in the paper."""
    ratios = sorted(df["negatives_per_positive"].unique())
    axes.set_xscale("log")
    axes.set_xlim(max(ratios) * 1.35, min(ratios) / 1.35)
    # Two ratios closer than a sixth of the axis' decades would print over each other.
    gap = max(0.12 * np.log10(max(ratios) / min(ratios)), 1e-9)
    ticks: list[float] = []
    for ratio in reversed(ratios):
        if not ticks or np.log10(ticks[-1] / ratio) >= gap:
            ticks.append(ratio)
    axes.set_xticks(ticks, [f"1:{_short(ratio)}" for ratio in ticks])
    axes.minorticks_off()


def _short(ratio: float) -> str:
    """As the paper writes them: 16k, 1.6k, 164, 16, 1.6."""
    if ratio >= 1000:
        return f"{ratio / 1000:.2g}k"
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


def _notes(df: pd.DataFrame) -> list[str]:
    seeds = df[df["what"] == "seed"]["seed"].nunique()
    lines = [f"Small dots: {seeds} seed{'s' if seeds != 1 else ''}."]
    if seeds > 1:
        lines = [f"{lines[0]} Bars: 95 % interval of the mean, {ASSUMPTION}."]
    lines.append("The paper prints no numbers for this figure (its Fig. 6).")
    lines += [f"{note}." for note in df.attrs.get("notes", ())]
    return lines + quality.missing_note(df.attrs.get("missing", []))


fig_6 = Plot("fig_6", data, draw)
