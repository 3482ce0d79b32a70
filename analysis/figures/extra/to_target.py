"""Examples and steps to a target by batch size, and the critical batch size (McCandlish 2018).

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

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.batch_size import TOWERS
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import LOSSES, STYLES
from analysis.select import panels
from analysis.stats import CriticalBatch, default_target, first_crossing, fit_critical_batch

PARTS = ("examples", "steps")


def data(inputs: Inputs) -> pd.DataFrame:
    """Panels "examples" and "steps" of one image tower; value is how many until the target.

    kind: "seed" is a cell that reached it, "censored" one that did not by its end, "mean" the
    geometric mean of a batch size all of whose cells did, "fit" a point of the hyperbola, and
    "critical" its result: x is B_crit with `low` and `high`, id holds it in words.
    """
    for image, tower in TOWERS.items():
        panel = inputs.select(panels.batch_sizes, image=image)
        done = panel.done
        metrics = (
            key
            for key in done
            if key.startswith("eval/val_loss/")
            and key.endswith("/softmax")
            and done[key].notna().any()
        )
        if not (metric := next(metrics, None)):
            continue
        sigmoid = done[done["loss.kind"] == "sigmoid"]
        target = default_target(sigmoid.set_index("batch_size")[metric], metric)
        rows = _rows(inputs.rows, done, metric, target)
        if any(row["kind"] == "seed" for row in rows):
            title = f"{tower}: {panels.title(panel)}. Target: {metric} = {target:.3g}"
            missing = points.without_metric(panel, metric)
            return points.make_table(rows, panels=[panel], missing=missing, title=title)
    return points.make_table([])


def draw(df: pd.DataFrame) -> StudyFigure:
    """Examples and steps against the batch size, then steps against examples."""
    fig, (*over_size, pareto) = layout.make_figure(
        df,
        title="Examples and steps to one validation loss",
        caption=_words(df),
        columns=layout.arrange(3, wide=3),
        heights=1.8,
        legend=_handles(df),
    )
    for axes, part in zip(over_size, PARTS, strict=True):
        _draw_times(axes, df[df["panel"] == part])
        axes.set_ylabel(f"{part} to target")
    _, steps = over_size
    _draw_linear_scaling(steps, df[df["panel"] == "steps"])
    _draw_pareto(pareto, df)
    return fig


def _handles(df: pd.DataFrame) -> list[Any]:
    return [STYLES[loss].handle(loss) for loss in LOSSES if (df["series"] == loss).any()]


def _rows(lines: pd.DataFrame, done: pd.DataFrame, metric: str, target: float) -> list[Row]:
    runs = dict(iter(lines[lines["id"].isin(done["id"])].groupby("id"))) if len(lines) else {}
    rows: list[Row] = []
    for loss in LOSSES:
        mine = done[done["loss.kind"] == loss]
        common = {"source": "ours", "series": loss, "metric": metric}
        times: dict[int, list[float]] = {}
        censored: set[int] = set()
        for cell, size, seed in zip(mine["id"], mine["batch_size"], mine["seed"], strict=True):
            run = runs.get(cell)
            if run is None or metric not in run:
                continue
            when = first_crossing(run, metric, target, batch_size=int(size))
            if when is None:
                continue
            kind = "censored" if when.censored else "seed"
            censored |= {int(size)} if when.censored else set()
            times.setdefault(int(size), []).append(when.examples)
            rows += [
                common
                | {"panel": part, "kind": kind, "x": int(size), "value": getattr(when, part)}
                | {"seed": seed, "id": cell}
                for part in PARTS
            ]
        whole = {size: each for size, each in times.items() if size not in censored}
        for part in PARTS:
            for size, each in sorted(whole.items()):
                mean = float(np.exp(np.mean(np.log(each)))) / (size if part == "steps" else 1)
                rows.append(
                    common
                    | {"panel": part, "kind": "mean", "x": size, "value": mean, "n": len(each)}
                )
        rows += [common | row for row in _fit_rows(fit_critical_batch(whole), whole)]
    return rows


def _fit_rows(fit: CriticalBatch | None, times: Mapping[int, list[float]]) -> list[Row]:
    if fit is None:
        return []
    sizes = np.geomspace(fit.smallest, fit.largest, 50)
    rows: list[Row] = [
        {"panel": part, "kind": "fit", "x": size}
        | {"value": examples / (size if part == "steps" else 1)}
        for part in PARTS
        for size, examples in zip(sizes, fit.examples(sizes), strict=True)
    ]
    result = {"x": fit.batch, "low": fit.low, "high": fit.high, "value": fit.examples_min}
    count = {"n": sum(map(len, times.values())), "id": _describe(fit)}
    return [*rows, {"panel": "examples", "kind": "critical"} | result | count]


def _describe(fit: CriticalBatch) -> str:
    at, low, high = fit.at_overhead
    interval = f" (95 % {fit.low:,.0f} to {fit.high:,.0f})"
    overhead = f" ({low:,.0f} to {high:,.0f})"
    if np.isnan(fit.low):
        interval, overhead = " (no interval: one seed)", ""
    words = f"B_crit = {fit.batch:,.0f}{interval}; 20 % more examples than the fewest at B = "
    words += f"{at:,.0f}{overhead}"
    if not np.isnan(fit.low) and not fit.identified:
        words = f"not identified on this grid: {words}"
    if fit.left_out:
        sizes = ", ".join(style.format_size(size) for size in fit.left_out)
        words += f"; B = {sizes} left out: fewer negatives, and more examples needed"
    return words


def _draw_times(axes: Axes, df: pd.DataFrame) -> None:
    for loss in LOSSES:
        mine, look = df[df["series"] == loss], STYLES[loss]
        style.dots(axes, mine, look, size=4.0)
        late = mine[mine["kind"] == "censored"]
        size = 7 if loss == "sigmoid" else 5  # so that one is seen inside the other
        hollow = {"marker": "^", "markerfacecolor": "none", "markersize": size, "linestyle": ""}
        style.line(axes, late, look, **hollow)
        fit = mine[mine["kind"] == "fit"]
        if fit.empty:
            style.line(axes, style.means(mine), look, linewidth=0.8)
        style.line(axes, fit, look)
    style.plain_log(axes)
    style.batch_axis(axes, _sizes(df))


def _sizes(df: pd.DataFrame) -> list[int]:
    return sorted({int(x) for x in df.loc[df["kind"].isin(["seed", "censored"]), "x"]})


def _draw_linear_scaling(axes: Axes, df: pd.DataFrame) -> None:
    """Half the steps at twice the batch, from the smallest batch size that reached the target."""
    means = style.means(df[df["series"] == "sigmoid"])
    if not len(means):
        return
    first = means.loc[means["x"].astype(float).idxmin()]
    ends = np.array([first["x"], max(_sizes(df))], float)
    if ends[0] == ends[1]:
        return
    work = first["value"] * first["x"]
    axes.plot(ends, work / ends, color="#999999", linewidth=0.8, linestyle=":", zorder=1)
    x = float(ends[0] ** 0.25 * ends[1] ** 0.75)  # where few marks are
    axes.annotate("perfect scaling", (x, work / x), fontsize=style.SMALL, color=style.GREY,
                  xytext=(2, 2), textcoords="offset points")  # fmt: skip


def _draw_pareto(axes: Axes, df: pd.DataFrame) -> None:
    """Steps against examples, a point for each batch size; the line is the fitted hyperbola."""
    axes.set_xlabel("examples to target")
    axes.set_ylabel("steps to target")
    if not (df["kind"] == "mean").any():
        axes.text(0.5, 0.5, "at no batch size did every seed reach it", ha="center",
                  transform=axes.transAxes)  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
        return
    for loss in LOSSES:
        look = STYLES[loss]
        for kind in ("mean", "fit"):
            line: dict[str, Any] = {"color": look.colour, "linestyle": look.line}
            if kind == "mean":
                line |= {"linestyle": "", "marker": look.marker}
            mine = df[(df["series"] == loss) & (df["kind"] == kind)]
            examples, steps = (
                mine[mine["panel"] == part].set_index("x")["value"] for part in PARTS
            )
            axes.plot(examples.to_numpy(), steps.to_numpy(), **line)
            if kind == "mean" and loss == "sigmoid":
                for size in examples.index:
                    axes.annotate(
                        style.format_size(size), (examples[size], steps[size]),
                        fontsize=style.SMALL, xytext=(3, 3), textcoords="offset points",
                    )  # fmt: skip
    style.plain_log(axes, "x")
    style.plain_log(axes)


def _words(df: pd.DataFrame) -> list[str]:
    late = df[(df["kind"] == "censored") & (df["panel"] == "examples")]
    words = []
    if len(late):
        words.append(
            f"Hollow triangles: {len(late)} cell{'s' if len(late) > 1 else ''} that did not reach "
            "it, drawn at the end of the run: a lower bound; their batch sizes are in no fit."
        )
    words.append(
        "Values along a run depend on its schedule: a run made to end there would get there "
        "sooner. Lines: steps and examples on a hyperbola, E = E_min + S_min B, "
        "B_crit = E_min / S_min."
    )
    results = df[df["kind"] == "critical"]
    return words + [f"{row['series']}: {row['id']}." for _, row in results.iterrows()]


to_target = Plot("to_target", data, draw)
