"""Examples and steps to a target against the batch size, and the critical batch size.

Cells: those of Fig. 2, by their fields (see `panels.batch_sizes`). The target is a value of the
validation loss on fixed negatives, never of the training loss, which depends on the batch size by
construction. It is the softmax loss there, which both losses have and no bias enters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.saturation import IMAGES, LOSSES
from analysis.figures.plot import marks, points, style
from analysis.figures.plot.quality import missing_note
from analysis.select import panels
from analysis.stats import CriticalBatch, default_target, first_crossing, fit_critical_batch

PARTS = ("examples", "steps")


def data(inputs: Inputs) -> pd.DataFrame:
    """Panels "examples" and "steps" of one image tower; value is how many until the target.

    what: "seed" is a cell that reached it, "censored" one that did not by its end, "mean" the
    geometric mean of a batch size all of whose cells did, "fit" a point of the hyperbola, and
    "critical" its result: x is B_crit with `low` and `high`, id says it in words.
    """
    for image, name in IMAGES.items():
        panel = inputs.chosen(panels.batch_sizes, image=image)
        metric = _fixed_loss(panel.done)
        if metric is None:
            continue
        sigmoid = panel.done[panel.done["loss.kind"] == "sigmoid"]
        target = default_target(sigmoid.set_index("batch_size")[metric], metric)
        rows = _rows(inputs.rows, panel.done, metric, target)
        if any(row["what"] == "seed" for row in rows):
            said = f"{name}: {panels.title(panel)}. Target: {metric} = {target:.3g}"
            missing = points.unmeasured(panel, metric)
            return points.frame(rows, panels=[panel], missing=missing, title=said)
    return points.frame([])


def draw(df: pd.DataFrame) -> Figure:
    """Examples and steps against the batch size, then steps against examples."""
    with style.context():
        fig, axes = style.figure(
            heights=[1.6, 1.6, 1.9],
            title="Examples and steps to one validation loss",
            notes=_notes(df),
            footer=df.attrs.get("provenance", ""),
        )
        for one, part in zip(axes, PARTS, strict=False):
            mine = df[df["panel"] == part]
            _panel(one, mine)
            one.set_ylabel(f"{part} to target")
        axes[0].set_xlabel("")
        style.legend(axes[0])
        _linear_scaling(axes[1], df[df["panel"] == "steps"])
        _pareto(axes[2], df)
    return fig


def _fixed_loss(done: pd.DataFrame) -> str | None:
    known = [
        key
        for key in done
        if key.startswith("eval/fixed_loss/")
        and key.endswith("/softmax")
        and done[key].notna().any()
    ]
    return known[0] if known else None


def _rows(
    lines: pd.DataFrame, done: pd.DataFrame, metric: str, target: float
) -> list[dict[str, Any]]:
    curves = dict(iter(lines[lines["id"].isin(done["id"])].groupby("id"))) if len(lines) else {}
    rows: list[dict[str, Any]] = []
    for loss in LOSSES:
        mine = done[done["loss.kind"] == loss]
        times: dict[int, list[float]] = {}
        late: set[int] = set()
        for cell, size, seed in zip(mine["id"], mine["batch_size"], mine["seed"], strict=True):
            curve = curves.get(cell)
            if curve is None or metric not in curve:
                continue
            when = first_crossing(curve, metric, target, batch_size=int(size))
            if when is None:
                continue
            what = "censored" if when.censored else "seed"
            late |= {int(size)} if when.censored else set()
            times.setdefault(int(size), []).append(when.examples)
            for part in PARTS:
                rows.append(
                    {"panel": part, "source": "ours", "series": loss, "what": what, "x": int(size)}
                    | {"value": getattr(when, part), "seed": seed, "id": cell, "metric": metric}
                )
        whole = {size: each for size, each in times.items() if size not in late}
        rows += _means(whole, loss, metric)
        rows += _fit(fit_critical_batch(whole), whole, loss, metric)
    return rows


def _means(times: Mapping[int, list[float]], loss: str, metric: str) -> list[dict[str, Any]]:
    return [
        {"panel": part, "source": "ours", "series": loss, "what": "mean", "x": size}
        | {"value": float(np.exp(np.mean(np.log(each)))) / (size if part == "steps" else 1)}
        | {"n": len(each), "metric": metric}
        for part in PARTS
        for size, each in sorted(times.items())
    ]


def _fit(
    fit: CriticalBatch | None, times: Mapping[int, list[float]], loss: str, metric: str
) -> list[dict[str, Any]]:
    if fit is None:
        return []
    sizes = np.geomspace(fit.smallest, fit.largest, 50)
    common = {"source": "ours", "series": loss, "metric": metric}
    rows: list[dict[str, Any]] = [
        common | {"panel": part, "what": "fit", "x": size}
        | {"value": examples / (size if part == "steps" else 1)}
        for part in PARTS
        for size, examples in zip(sizes, fit.examples(sizes), strict=True)
    ]  # fmt: skip
    result = {"x": fit.batch, "low": fit.low, "high": fit.high, "value": fit.examples_min}
    many = {"n": sum(map(len, times.values())), "id": _words(fit)}
    return [*rows, common | {"panel": "examples", "what": "critical"} | result | many]


def _words(fit: CriticalBatch) -> str:
    at, low, high = fit.at_overhead
    ends = f"{fit.low:,.0f} to {fit.high:,.0f}"
    said = f"B_crit = {fit.batch:,.0f}"
    said += " (no interval: one seed)" if np.isnan(fit.low) else f" (95 % {ends})"
    said += f"; 20 % more examples than the fewest at B = {at:,.0f}"
    said += "" if np.isnan(low) else f" ({low:,.0f} to {high:,.0f})"
    if not np.isnan(fit.low) and not fit.identified:
        said = f"not identified on this grid: {said}"
    if fit.left_out:
        sizes = ", ".join(style.short(size) for size in fit.left_out)
        said += f"; B = {sizes} left out: fewer negatives, and more examples needed"
    return said


def _panel(axes: Axes, df: pd.DataFrame) -> None:
    for loss in LOSSES:
        mine, look = df[df["series"] == loss], style.STYLES[loss]
        if mine.empty:
            continue
        marks.dots(axes, mine, "x", look, size=4.0)
        late = mine[mine["what"] == "censored"]
        hollow: dict[str, Any] = {"marker": "^", "markerfacecolor": "none", "color": look.colour}
        size = 7 if loss == "sigmoid" else 5  # so that one is seen inside the other
        axes.plot(late["x"], late["value"], linestyle="", markersize=size, **hollow)
        fit = mine[mine["what"] == "fit"]
        if fit.empty:
            marks.line(axes, marks.means(mine), "x", look, linewidth=0.8)
        marks.line(axes, fit, "x", look)
        axes.plot([], [], color=look.colour, linestyle=look.line, marker=look.marker, label=loss)
    marks.plain_log(axes)
    style.batch_axis(axes, sorted(set(_sizes(df))))


def _sizes(df: pd.DataFrame) -> list[int]:
    return [int(x) for x in df.loc[df["what"].isin(["seed", "censored"]), "x"]]


def _linear_scaling(axes: Axes, df: pd.DataFrame) -> None:
    """Half the steps at twice the batch, from the smallest batch size that reached the target."""
    means = marks.means(df[df["series"] == "sigmoid"])
    if len(means):
        first = means.loc[means["x"].astype(float).idxmin()]
        ends = np.array([first["x"], max(_sizes(df))], float)
        if ends[0] == ends[1]:
            return
        work = first["value"] * first["x"]
        axes.plot(ends, work / ends, color="#999999", linewidth=0.8, linestyle=":", zorder=1)
        x = float(ends[0] ** 0.25 * ends[1] ** 0.75)  # where few marks are
        axes.annotate("perfect scaling", (x, work / x), fontsize=style.SMALL, color="#777777",
                      xytext=(2, 2), textcoords="offset points")  # fmt: skip


def _pareto(axes: Axes, df: pd.DataFrame) -> None:
    """Steps against examples, a point for each batch size; the hyperbola is the fit."""
    axes.set_xlabel("examples to target")
    axes.set_ylabel("steps to target")
    if not (df["what"] == "mean").any():
        axes.text(0.5, 0.5, "at no batch size did every seed reach it", ha="center",
                  transform=axes.transAxes)  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
        return
    for loss in LOSSES:
        look = style.STYLES[loss]
        for what, line in (("mean", {"linestyle": "", "marker": look.marker}), ("fit", {})):
            mine = df[(df["series"] == loss) & (df["what"] == what)]
            both = [
                mine[mine["panel"] == part].set_index(mine.loc[mine["panel"] == part, "x"])["value"]
                for part in PARTS
            ]
            style_of: dict[str, Any] = {"color": look.colour, "linestyle": look.line} | line
            axes.plot(both[0].to_numpy(), both[1].to_numpy(), **style_of)
            if what == "mean" and loss == "sigmoid":
                for size in both[0].index:
                    at = (both[0][size], both[1][size])
                    axes.annotate(style.short(int(size)), at, fontsize=style.SMALL,
                                  xytext=(3, 3), textcoords="offset points")  # fmt: skip
    marks.plain_log(axes, "x")
    marks.plain_log(axes)


def _notes(df: pd.DataFrame) -> list[str]:
    late = df[(df["what"] == "censored") & (df["panel"] == "examples")]
    lines = [f"{df.attrs['title']}."] if df.attrs.get("title") else []
    if len(late):
        lines.append(
            f"Hollow triangles: {len(late)} cell{'s' if len(late) > 1 else ''} that did not reach "
            "it, drawn at the end of the run: a lower bound; their batch sizes are in no fit."
        )
    lines.append(
        "Values along a run depend on its schedule: a run made to end there would get there "
        "sooner. Lines: steps and examples on a hyperbola, E = E_min + S_min B, "
        "B_crit = E_min / S_min."
    )
    found = df[df["what"] == "critical"]
    lines += [f"{row['series']}: {row['id']}." for _, row in found.iterrows()]
    lines += [f"{note}." for note in df.attrs.get("notes", ())]
    return [*lines, *missing_note(df.attrs.get("missing", []))]


to_target = Plot("to_target", data, draw)
