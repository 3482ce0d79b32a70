"""Sigmoid minus softmax by batch size, paired by seed, in every quality that was recorded.

Cells: those of Fig. 2, by their fields (see `panels.batch_sizes`): SigLiT and from scratch.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.saturation import IMAGES
from analysis.figures.plot import marks, points, style
from analysis.figures.plot.quality import label, missing_note
from analysis.select import panels
from analysis.stats.intervals import by_group, paired_differences, pooled_means

MOST = 4  # metrics of one panel that are drawn, the asked for one first


def data(inputs: Inputs) -> pd.DataFrame:
    """One row per seed and per mean; series is the metric.

    In a mean row `low` and `high` hold for this batch size alone; "all at once" rows have the
    interval that holds for all batch sizes of the metric together.
    """
    rows: list[dict[str, Any]] = []
    used = []
    for image, name in IMAGES.items():
        panel = inputs.chosen(panels.batch_sizes, image=image)
        found = [
            row for key in _metrics(panel.done, inputs) for row in _gaps(panel.done, key, name)
        ]
        if found:
            rows += found
            used.append(panel)
    title = "; ".join(f"{IMAGES.get(_image(panel), '')}: {panels.title(panel)}" for panel in used)
    return points.frame(rows, panels=used, title=title)


def draw(df: pd.DataFrame) -> Figure:
    """A panel for each metric: seeds as dots, pointwise and simultaneous intervals as bars."""
    shown = list(dict.fromkeys(zip(df["panel"], df["series"], strict=True)))
    with style.context():
        fig, axes = style.figure(
            heights=[1.25] * len(shown),
            title="Sigmoid minus softmax by batch size",
            notes=_notes(df),
            footer=df.attrs.get("provenance", ""),
        )
        look = style.STYLES["difference"]
        for one, (name, metric) in zip(axes, shown, strict=True):
            mine = df[(df["panel"] == name) & (df["series"] == metric)]
            one.axhline(0, color="black", linewidth=0.8)
            marks.dots(one, mine, "x", look, size=3.0)
            means, wide = marks.means(mine), mine[mine["what"] == "all at once"]
            marks.line(one, means, "x", look, marker="_", markersize=9, linestyle="")
            marks.bars(one, means, "x", look)
            for _, row in wide.iterrows():
                ends = [row["low"], row["high"]]
                one.plot([row["x"]] * 2, ends, color=look.colour, linewidth=0.5, alpha=0.7)
            one.set_title(name, loc="left")
            one.set_ylabel(label(metric).replace(" (%)", " (points)"), fontsize=style.SMALL + 0.5)
            style.batch_axis(one, sorted({int(x) for x in mine["x"]}))
        for one in axes[:-1]:
            one.set_xlabel("")
    return fig


def _metrics(done: pd.DataFrame, inputs: Inputs) -> list[str]:
    others = [
        key
        for key in done
        if key.startswith("eval/") and key.endswith(("/top1", "_r1")) and "_shot/val" not in key
    ]
    # Of a multilingual evaluation the means over languages, not each language.
    wanted = [key for key in others if key.count("_") <= 5 and not key.startswith("eval/few_shot/")]
    return list(dict.fromkeys([inputs.quality, *wanted]))[:MOST]


def _gaps(done: pd.DataFrame, metric: str, name: str) -> list[dict[str, Any]]:
    pairs = paired_differences(done, metric)
    means = pooled_means(by_group(pairs, ["batch_size"], "difference"))
    common = {"panel": name, "source": "ours", "series": metric, "metric": metric}
    rows = [
        common
        | {"what": "seed", "x": int(row["batch_size"]), "value": row["difference"]}
        | {"seed": int(row["seed"])}
        for _, row in pairs.iterrows()
    ]
    critical = means.critical(comparisons=max(1, len(means.means)))
    for size in sorted(means.means):
        at = {"x": int(size), "n": means.counts[size]}
        value, low, high = means.mean(size)
        rows.append(common | at | {"what": "mean", "value": value, "low": low, "high": high})
        value, low, high = means.contrast({size: 1.0}, critical=critical)
        rows.append(common | at | {"what": "all at once", "value": value, "low": low, "high": high})
    return rows


def _image(panel: panels.Panel) -> str:
    return str(panel.cells["model.image.kind"].iloc[0])


def _notes(df: pd.DataFrame) -> list[str]:
    lines = [
        "Pairs share a seed, and so their examples and their order. Bars: 95 % interval of the "
        "mean difference, variance of the differences pooled over the batch sizes, t interval; "
        "thin: intervals that hold for all batch sizes of a panel at once (Bonferroni)."
    ]
    if not df["low"].notna().any():
        lines = ["Pairs share a seed, and so their examples. One seed, so no interval."]
    lines += [f"{df.attrs['title']}."] if df.attrs.get("title") else []
    lines += [f"{note}." for note in df.attrs.get("notes", ())]
    return [*lines, *missing_note(df.attrs.get("missing", []))]


loss_gap = Plot("loss_gap", data, draw)
