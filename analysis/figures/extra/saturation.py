"""From which batch size on there is nothing left to gain, by two fitted forms (Sec. 4.1, 4.2).

Cells: those of Fig. 2, by their fields (see `panels.batch_sizes`): SigLiT and from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import marks, points, style
from analysis.figures.plot.quality import label, missing_note
from analysis.select import panels
from analysis.stats import FORMS, MeanDraws, Saturation, draw_means, fit_saturation
from analysis.stats.intervals import by_group

IMAGES = {"cached": "SigLiT", "vit": "from scratch"}
LOSSES = ("sigmoid", "softmax")
LINES: dict[str, Any] = {"power": "-", "logarithm": (0, (2, 1))}
SHORT = {"power": "power", "logarithm": "log"}


def data(inputs: Inputs) -> pd.DataFrame:
    """Seeds and means; "fit" rows are points of a fitted curve; "saturation" rows are its result.

    In a "saturation" row x is the batch size with `low` and `high`, value the tolerance in
    points, series the loss, metric the form, and id the result in words.
    """
    rows: list[dict[str, Any]] = []
    used, missing = [], []
    for image, name in IMAGES.items():
        panel = inputs.chosen(panels.batch_sizes, image=image)
        done = points.measured(panel.done, inputs.quality)
        fitted = [row for loss in LOSSES for row in _fits(inputs, done, loss, name)]
        if fitted:
            same = done.assign(series=done["loss.kind"], x=done["batch_size"])
            rows += [*points.ours(same, name, inputs.quality), *fitted]
            used.append(panel)
            missing += points.unmeasured(panel, inputs.quality)
    table = points.frame(rows, panels=used, missing=missing, title=_title(used))
    table.attrs["metric"] = inputs.quality
    return table


def draw(df: pd.DataFrame) -> Figure:
    """Quality and both fits; below each panel the saturation batch with its interval."""
    names = list(dict.fromkeys(df["panel"]))
    heights = [height for _ in names for height in (1.9, 0.75)]
    with style.context():
        fig, axes = style.figure(
            heights=[0.22, *heights],
            title="From which batch size on is there nothing left to gain?",
            notes=_notes(df),
            footer=df.attrs.get("provenance", ""),
        )
        losses = [_handle(loss) for loss in LOSSES if (df["series"] == loss).any()]
        forms = [
            Line2D([], [], color="#555555", linestyle=line, label=SHORT[form])
            for form, line in LINES.items()
        ]
        handles = [*losses, *forms]
        style.key(axes[0], handles, columns=4)
        for name, top, below in zip(names, axes[1::2], axes[2::2], strict=True):
            _curves(top, df[df["panel"] == name], name)
            _intervals(below, df[df["panel"] == name])
    return fig


def _fits(inputs: Inputs, done: pd.DataFrame, loss: str, name: str) -> list[dict[str, Any]]:
    mine = done[done["loss.kind"] == loss]
    values = by_group(mine, ["batch_size"], inputs.quality)
    if len(values) < 4:
        return []
    data = draw_means(values, items=_items(inputs, mine))
    rows: list[dict[str, Any]] = []
    for form in FORMS:
        found = fit_saturation(data, form)
        if found is None:
            continue
        common = {"panel": name, "source": "ours", "series": loss, "metric": form}
        last = max(data.levels_K[~np.isin(data.levels_K, found.left_out)])
        sizes = np.geomspace(data.levels_K[0], last, 60)
        rows += [
            common | {"what": "fit", "x": x, "value": y}
            for x, y in zip(sizes, found.curve(sizes), strict=True)
        ]
        rows.append(
            common
            | {"what": "saturation", "x": found.batch, "low": found.low, "high": found.high}
            | {"value": found.tolerance, "n": len(mine), "id": _words(data, form, found)}
        )
    return rows


def _words(data: MeanDraws, form: str, found: Saturation) -> str:
    left = ""
    if found.left_out:
        sizes = ", ".join(style.short(size) for size in found.left_out)
        left = f"; B = {sizes} left out, where quality falls again"
    return f"{form}: {found}; AIC {found.aic:.1f}{left}"


def _items(inputs: Inputs, cells: pd.DataFrame) -> dict[int, np.ndarray] | None:
    """Percent right of each evaluated example by batch size, or None if some cell lacks them."""
    found: dict[int, list[np.ndarray]] = {}
    for name, size in zip(cells["id"], cells["batch_size"], strict=True):
        hits = inputs.read_items(name, inputs.quality)
        if hits is None:
            return None
        found.setdefault(int(size), []).append(100.0 * hits)
    lengths = {len(hits) for each in found.values() for hits in each}
    if len(lengths) != 1:
        return None
    return {size: np.mean(each, axis=0) for size, each in found.items()}


def _curves(axes: Axes, df: pd.DataFrame, name: str) -> None:
    for loss in LOSSES:
        mine, look = df[df["series"] == loss], style.STYLES[loss]
        marks.dots(axes, mine, "x", look, size=3.4)
        marks.bars(axes, marks.means(mine), "x", look)
        for form, line in LINES.items():
            curve = mine[(mine["what"] == "fit") & (mine["metric"] == form)]
            marks.line(axes, curve, "x", look, linestyle=line, linewidth=1.1)
    axes.set_title(name, loc="left")
    axes.set_ylabel(label(df.loc[df["what"] == "seed", "metric"].iloc[0]))
    style.batch_axis(axes, _sizes(df))
    axes.set_xlabel("")


def _intervals(axes: Axes, df: pd.DataFrame) -> None:
    sizes = _sizes(df)
    found = df[df["what"] == "saturation"]
    labels = []
    for at, (_, row) in enumerate(found.iterrows()):
        look = style.STYLES[row["series"]]
        low, high = max(row["low"], sizes[0] / 1.6), min(row["high"], sizes[-1] * 1.6)
        if np.isfinite(row["low"]):
            axes.plot([low, high], [-at, -at], color=look.colour, linestyle=LINES[row["metric"]])
            for end, mark, cut in ((low, "<", row["low"] < low), (high, ">", row["high"] > high)):
                axes.plot([end], [-at], marker=mark if cut else "|", color=look.colour)
        if sizes[0] / 1.6 <= row["x"] <= sizes[-1] * 1.6:
            axes.plot([row["x"]], [-at], marker=look.marker, color=look.colour)
        labels.append(f"{row['series']}, {SHORT[row['metric']]}")
    axes.set_yticks([-at for at in range(len(labels))], labels, fontsize=style.SMALL)
    axes.set_ylim(-len(labels) + 0.4, 0.6)
    style.batch_axis(axes, sizes)
    axes.set_xlim(sizes[0] / 2, sizes[-1] * 2)


def _handle(loss: str) -> Line2D:
    look = style.STYLES[loss]
    return Line2D([], [], color=look.colour, marker=look.marker, linestyle="", label=loss)


def _sizes(df: pd.DataFrame) -> list[int]:
    return sorted({int(x) for x in df.loc[df["what"] == "seed", "x"]})


def _notes(df: pd.DataFrame) -> list[str]:
    found = df[df["what"] == "saturation"]
    tolerance = found["value"].iloc[0]
    lines = [
        f"Below each panel: the batch beyond which the fit has no more than {tolerance:g} points "
        "to gain, with a 95 % bootstrap interval over seeds and, where records hold them, "
        "evaluated examples. Arrows leave the grid: not identified. Forms: "
        + "; ".join(f"{name} {form.formula}" for name, form in FORMS.items())
        + ". A smaller AIC fits better.",
        *(f"{row['panel']}, {row['series']}, {row['id']}." for _, row in found.iterrows()),
    ]
    if title := df.attrs.get("title"):
        lines.append(f"{title}.")
    lines += [f"{note}." for note in df.attrs.get("notes", ())]
    return [*lines, *missing_note(df.attrs.get("missing", []))]


def _title(used: Sequence[panels.Panel]) -> str:
    return "; ".join(panels.title(panel) for panel in used)


saturation = Plot("saturation", data, draw)
