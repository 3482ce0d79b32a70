"""The batch size beyond which there is nothing left to gain, by two fitted forms (Sec. 4.1, 4.2).

Cells: those of Fig. 2, by their fields (see `panels.batch_sizes`): SigLiT and from scratch. Batch
sizes with too few steps (see `select.deciding`) are drawn, but enter no fit, as they decide no
claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.batch_size import TOWERS
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import LOSSES, STYLES
from analysis.select import panels
from analysis.select.deciding import steps_by_size, too_short
from analysis.stats import FORMS, draw_means, fit_saturation
from analysis.stats.intervals import by_group

LINES: dict[str, Any] = {"power": "-", "logarithm": (0, (2, 1))}
SHORT = {"power": "power", "logarithm": "log"}


def data(inputs: Inputs) -> pd.DataFrame:
    """Seeds and means; "fit" rows are points of a fitted curve; "saturation" rows are its result.

    In a "saturation" row x is the batch size with `low` and `high`, value the tolerance in
    points, series the loss, metric the form, and id the result in words.
    """
    rows: list[Row] = []
    used, missing = [], []
    for image, name in TOWERS.items():
        panel = inputs.select(panels.batch_sizes, image=image)
        done = points.with_metric(panel.done, inputs.quality)
        fits = [row for loss in LOSSES for row in _fits(inputs, done, loss, name)]
        if fits:
            same = done.assign(series=done["loss.kind"], x=done["batch_size"])
            rows += [*points.our_points(same, name, inputs.quality, inputs.read_items), *fits]
            used.append(panel)
            missing += points.without_metric(panel, inputs.quality)
    title = "; ".join(panels.title(panel) for panel in used)
    table = points.make_table(rows, panels=used, missing=missing, title=title)
    table.attrs["metric"] = inputs.quality
    return table


def draw(df: pd.DataFrame) -> StudyFigure:
    """Quality and both fits; below each panel the saturation batch with its interval."""
    names = list(dict.fromkeys(df["panel"]))
    results = df[df["kind"] == "saturation"]
    forms = "; ".join(f"{name} {form.formula}" for name, form in FORMS.items())
    words = [
        "Below each panel: the batch beyond which the fit has no more to gain than the tolerance, "
        "a quarter of the rise of quality with the batch size, with a 95 % bootstrap interval over "
        "seeds and, where records hold them, evaluated examples. Arrows: the interval leaves the "
        "batch sizes of the fit, so it is not identified. "
        f"Forms: {forms}. A smaller AIC fits better.",
        *(f"{row['panel']}, {row['series']}, {row['id']}." for _, row in results.iterrows()),
    ]
    losses = [loss for loss in LOSSES if (df["series"] == loss).any()]
    handles = [STYLES[loss].handle(loss, linestyle="") for loss in losses]
    handles += [
        Line2D([], [], color="#555555", linestyle=line, label=SHORT[form])
        for form, line in LINES.items()
    ]
    columns = layout.arrange(len(names), wide=2)
    fig, every = layout.make_figure(
        df,
        title="Saturation: the batch size beyond which there is nothing to gain",
        caption=words,
        columns=[count for count in columns for _ in range(2)],
        heights=[1.7, 0.75] * len(columns),
        legend=handles,
        align=False,
    )
    first = 0
    pairs = []
    for count in columns:
        row = every[first : first + 2 * count]
        pairs += list(zip(row[:count], row[count:], strict=True))
        first += 2 * count
    for name, (curves, intervals) in zip(names, pairs, strict=True):
        part = df[df["panel"] == name]
        sizes = sorted({int(x) for x in part.loc[part["kind"] == "seed", "x"]})
        _draw_curves(curves, part, sizes)
        curves.set_title(name, loc="left")
        _draw_intervals(intervals, part, sizes)
    return fig


def _fits(inputs: Inputs, done: pd.DataFrame, loss: str, panel: str) -> list[Row]:
    steps = steps_by_size(done)
    mine = done[(done["loss.kind"] == loss) & ~done["batch_size"].isin(too_short(steps))]
    values = by_group(mine, ["batch_size"], inputs.quality)
    if len(values) < 4:
        return []
    samples = draw_means(values, items=items_by(inputs, mine, ["batch_size"], inputs.quality))
    rows: list[Row] = []
    for form in FORMS:
        fit = fit_saturation(samples, form)
        if fit is None:
            continue
        common = {"panel": panel, "source": "ours", "series": loss, "metric": form}
        levels_K = samples.levels_K
        sizes = np.geomspace(levels_K[0], max(levels_K[~np.isin(levels_K, fit.left_out)]), 60)
        rows += [
            common | {"kind": "fit", "x": x, "value": y}
            for x, y in zip(sizes, fit.curve(sizes), strict=True)
        ]
        words = f"{form}, tolerance {fit.tolerance:.2f} points: {fit}; AIC {fit.aic:.1f}"
        if fit.left_out:
            left_out = ", ".join(style.format_size(size) for size in fit.left_out)
            words += f"; B = {left_out} left out, where quality falls again"
        rows.append(
            common
            | {"kind": "saturation", "x": fit.batch, "low": fit.low, "high": fit.high}
            | {"value": fit.tolerance, "n": len(mine), "id": words}
        )
    return rows


def items_by(
    inputs: Inputs, cells: pd.DataFrame, columns: Sequence[str], metric: str
) -> dict[Any, np.ndarray] | None:
    """Percent right of each evaluated example by these columns, or None if a cell lacks them."""
    correct: dict[Any, list[np.ndarray]] = {}
    for name, *key in cells[["id", *columns]].itertuples(index=False, name=None):
        hits = inputs.read_items(name, metric)
        if hits is None:
            return None
        correct.setdefault(key[0] if len(key) == 1 else tuple(key), []).append(100.0 * hits)
    if len({len(hits) for each in correct.values() for hits in each}) != 1:
        return None
    return {key: np.mean(each, axis=0) for key, each in correct.items()}


def _draw_curves(axes: Axes, df: pd.DataFrame, sizes: list[int]) -> None:
    for loss in LOSSES:
        mine, look = df[df["series"] == loss], STYLES[loss]
        style.dots(axes, mine, look, size=3.4)
        style.bars(axes, style.means(mine), look)
        for form, line in LINES.items():
            curve = mine[(mine["kind"] == "fit") & (mine["metric"] == form)]
            style.line(axes, curve, look, linestyle=line, linewidth=1.1)
    axes.set_ylabel(style.metric_label(df.loc[df["kind"] == "seed", "metric"].iloc[0]))
    style.batch_axis(axes, sizes)
    axes.set_xlim(sizes[0] / 2, sizes[-1] * 2)
    axes.set_xlabel("")


def _draw_intervals(axes: Axes, df: pd.DataFrame, sizes: list[int]) -> None:
    """The results as bars within the batch sizes of each fit; an arrow where one goes beyond."""
    labels = []
    for at, (_, row) in enumerate(df[df["kind"] == "saturation"].iterrows()):
        mine = (df["series"] == row["series"]) & (df["metric"] == row["metric"])
        fitted = df.loc[mine & (df["kind"] == "fit"), "x"].astype(float)
        look, left, right = STYLES[row["series"]], fitted.min(), fitted.max()
        if np.isfinite(row["low"]):
            low, high = np.clip([row["low"], row["high"]], left, right)
            axes.plot([low, high], [-at, -at], color=look.colour, linestyle=LINES[row["metric"]])
            marks = {
                low: "<" if row["low"] < left else "|",
                high: ">" if row["high"] > right else "|",
            }
            for end, marker in marks.items():
                axes.plot([end], [-at], marker=marker, color=look.colour)
        if left <= row["x"] <= right:
            axes.plot([row["x"]], [-at], marker=look.marker, color=look.colour)
        labels.append(f"{row['series']}, {SHORT[row['metric']]}")
    axes.set_yticks([-at for at in range(len(labels))], labels, fontsize=style.SMALL)
    axes.set_ylim(-len(labels) + 0.4, 0.6)
    style.batch_axis(axes, sizes)
    axes.set_xlim(sizes[0] / 2, sizes[-1] * 2)


saturation = Plot("saturation", data, draw)
