"""Quality against batch size, sigmoid and softmax: what the panels of Fig. 2 have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import paper
from analysis.errors import AnalysisError
from analysis.figures.base import Inputs
from analysis.figures.plot import marks, style
from analysis.select import panels
from analysis.select.fields import TOP1
from analysis.stats.intervals import ASSUMPTION, by_group, paired_differences, pooled_means

LOSSES = ("sigmoid", "softmax")
COLUMNS = ("panel", "series", "what", "batch_size", "seed", "value", "low", "high", "n", "id")


def data(inputs: Inputs, *, image: str) -> pd.DataFrame:
    """The points of a batch-size figure, long: one row per dot, mean or difference.

    Columns: panel ("ours", "difference", "paper"), series, what ("seed", "mean"), batch_size,
    seed, value, low and high (95 %), n (seeds), id. `attrs` has title, notes, missing,
    provenance and metric. Empty when the study has no such cell.

    Args:
      image: "cached" (SigLiT) or "vit" (both towers from scratch), see `panels.batch_sizes`.
    """
    panel = inputs.chosen(panels.batch_sizes, image=image)
    metric = inputs.quality_of(inputs.cells)
    done = _measured(panel.done, metric)
    rows = [*_ours(done, metric), *_difference(done, metric)]
    missing = panel.missing()
    missing += [f"{name} (done, without {metric})" for name in panel.done["id"].drop(done.index)]
    if rows:
        try:
            rows += _paper(image)
        except AnalysisError as error:
            missing.append(str(error))
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "n": "Int64"})
    if rows:
        frame.attrs["title"] = panels.title(panel)
        frame.attrs["provenance"] = style.provenance(panel.cells)
    frame.attrs.update(metric=metric, notes=list(panel.notes), missing=missing)
    return frame


def draw_ours(axes: Axes, df: pd.DataFrame) -> None:
    """Seeds as dots, mean as line, pooled interval as band."""
    ours = df[df["panel"] == "ours"]
    for loss in LOSSES:
        look = style.STYLES[loss]
        mine = ours[ours["series"] == loss]
        marks.dots(axes, mine, "batch_size", look, size=4.2)
        marks.band(axes, marks.means(mine), "batch_size", look)
        marks.line(axes, marks.means(mine), "batch_size", look)
        axes.plot([], [], color=look.colour, linestyle=look.line, marker=look.marker, label=loss)
    axes.set_ylabel(label(df.attrs.get("metric", TOP1)))
    style.batch_axis(axes, sorted(ours["batch_size"].unique()))
    style.legend(axes)


def draw_difference(axes: Axes, df: pd.DataFrame) -> None:
    """Sigmoid minus softmax by batch size, paired by seed, with the zero line."""
    ours = df[df["panel"] == "difference"]
    look = style.STYLES["difference"]
    axes.axhline(0, color="black", linewidth=0.8)
    marks.dots(axes, ours, "batch_size", look, size=3.4)
    wide = {"marker": "_", "markersize": 10, "linestyle": ""}
    marks.line(axes, marks.means(ours), "batch_size", look, **wide)
    marks.bars(axes, marks.means(ours), "batch_size", look)
    axes.set_ylabel("sigmoid \N{MINUS SIGN} softmax\n(points)")
    if len(ours) == 0:
        axes.text(0.5, 0.6, "no seed with both losses", transform=axes.transAxes, ha="center")
    style.batch_axis(axes, sorted(df[df["panel"] == "ours"]["batch_size"].unique()))


def draw_paper(axes: Axes, df: pd.DataFrame) -> None:
    """The paper's own points, hollow; it gives no seeds."""
    theirs = df[df["panel"] == "paper"]
    for loss in LOSSES:
        look = style.STYLES[loss]
        mine = theirs[theirs["series"] == loss]
        hollow = {"marker": look.marker, "markerfacecolor": "white", "linewidth": 0.9}
        marks.line(axes, mine, "batch_size", look, label=f"{loss}, paper", **hollow)
    axes.set_ylabel("ImageNet\nzero-shot top-1 (%)")
    style.batch_axis(axes, sorted(theirs["batch_size"].unique()))
    style.legend(axes)


def notes(df: pd.DataFrame) -> list[str]:
    """What a reader must know: the intervals, what is left out, what is missing."""
    seeds = df[df["what"] == "seed"]["seed"].nunique()
    many = f"{seeds} seed{'s' if seeds != 1 else ''}"
    intervals = f"Dots: {many}. Bands and bars: 95 % interval of the mean, {ASSUMPTION}."
    if seeds < 2:
        intervals = f"Dots: {many}, so no interval can be given."
    lines = [intervals, *(f"{note}." for note in df.attrs.get("notes", ()))]
    return lines + missing_note(df.attrs.get("missing", ()))


def between(seeds: pd.Series) -> str:
    """How many seeds there are at each point, from their numbers."""
    least, most = int(seeds.min()), int(seeds.max())
    if least == most:
        return f"{least} seed{'s' if least > 1 else ''}"
    return f"{least} to {most} seeds"


def missing_note(missing: list[str], most: int = 4) -> list[str]:
    """One line that names what is missing, as many as fit."""
    if not missing:
        return []
    rest = f"; and {len(missing) - most} more" if len(missing) > most else ""
    cut = [name if len(name) <= 90 else name[:89] + "…" for name in missing[:most]]
    return [f"Missing: {'; '.join(cut)}{rest}."]


def label(metric: str) -> str:
    """An axis label of a metric key."""
    kind, _, rest = metric.removeprefix("eval/").partition("/")
    split, _, measure = rest.partition("/")
    if kind == "zero_shot":
        return f"zero-shot top-1 (%)\non {split}"
    split, measure = (f"{split} {measure.rpartition('/')[0]}".rstrip(), measure.rpartition("/")[2])
    return f"{kind} {measure}\non {split}".replace("_", " ") if measure else metric


def _measured(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    if metric not in cells:
        return cells.iloc[:0]
    return cells[np.isfinite(cells[metric].astype(float))]


def _ours(done: pd.DataFrame, metric: str) -> list[dict[str, Any]]:
    means = pooled_means(by_group(done, ["loss.kind", "batch_size"], metric))
    rows: list[dict[str, Any]] = [
        {"panel": "ours", "series": row["loss.kind"], "what": "seed", "value": row[metric]}
        | {"batch_size": row["batch_size"], "seed": row["seed"], "id": row["id"]}
        for _, row in done.iterrows()
    ]
    for loss, size in sorted(means.means):
        value, low, high = means.mean((loss, size))
        n = means.counts[(loss, size)]
        rows.append(
            {"panel": "ours", "series": loss, "what": "mean", "batch_size": size}
            | {"value": value, "low": low, "high": high, "n": n}
        )
    return rows


def _difference(done: pd.DataFrame, metric: str) -> list[dict[str, Any]]:
    pairs = paired_differences(done, metric)
    means = pooled_means(by_group(pairs, ["batch_size"], "difference"))
    common = {"panel": "difference", "series": "sigmoid - softmax"}
    rows: list[dict[str, Any]] = [
        common
        | {"what": "seed", "value": row["difference"]}
        | {"batch_size": int(row["batch_size"]), "seed": int(row["seed"])}
        for _, row in pairs.iterrows()
    ]
    for size in sorted(means.means):
        value, low, high = means.mean(size)
        rows.append(
            common
            | {"what": "mean", "batch_size": int(size), "n": means.counts[size]}
            | {"value": value, "low": low, "high": high}
        )
    return rows


def _paper(image: str) -> list[dict[str, Any]]:
    return [
        {"panel": "paper", "series": row["loss.kind"], "what": "mean"}
        | {"batch_size": row["batch_size"], "value": row["value"], "id": row["panel"]}
        for _, row in paper.fig_2(image).iterrows()
    ]
