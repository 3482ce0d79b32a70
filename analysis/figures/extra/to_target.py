"""Examples to a target by batch size, and the critical batch size over targets (McCandlish 2018).

Cells: those of every budget of one image tower, by their fields (see `panels.by_budget`), and the
paper's Table 8. Each is a run that ended at its budget, see `analysis.stats.critical_batch`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.batch_size import TOWERS
from analysis.figures.extra.saturation import items_by
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import LOSSES, ORDERED_STYLES, STYLES, SeriesStyle
from analysis.figures.plot.ticks import FittingLocator, every_other
from analysis.paper import as_cells
from analysis.select import panels
from analysis.select.deciding import FEWEST_STEPS
from analysis.select.fields import TOP1
from analysis.select.panels import Panel
from analysis.stats import (
    CRITICAL_FORMS,
    CriticalBatch,
    QualityGrid,
    choose_targets,
    draw_quality,
    examples_to,
    fit_critical_batch,
    fit_trend,
)
from analysis.stats.intervals import by_group
from analysis.stats.resample import interval

EXAMPLES, OVER_TARGET, OVER_DATA = "examples", "over target", "over data"
TABLE = "Table 8"
DRAWN_TARGETS = 3
ZHANG = 0.47  # exponent of language models (Zhang 2025)
GUIDE: Any = {"color": "#999999", "linestyle": ":"}
NAMES = {"ours": "ours", "paper": TABLE}


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel "examples": x is the batch size, value the examples to the target in `metric`, n the
    steps; kind "mean", or "fit" for points of the hyperbola.

    Panels "over target" and "over data": kind "critical", value is B_crit with its interval, x the
    target or E_min, n how many batch sizes the fit uses, metric the form, and id whether the fit is
    identified and by which sizes. Kind "trend" of "over data": value is an exponent with its
    interval, metric "E_min" or "error".
    """
    rows: list[Row] = []
    used: list[Panel] = []
    title = ""
    for image, name in TOWERS.items():
        by_budget = inputs.select(panels.by_budget, image=image)
        rows = _rows(_our_grids(inputs, by_budget), "ours")
        if rows:
            used = list(by_budget.values())
            title = f"{name}, {len(by_budget)} budgets"
            break
    if rows or not len(inputs.cells):
        rows += _paper_rows()
    return points.make_table(
        points.round_results(rows),
        panels=used,
        title=title,
        why="no target has three batch sizes at two budgets",
    )


def draw(df: pd.DataFrame) -> StudyFigure:
    """For each source: examples over batch size by loss; B_crit over target and over data."""
    sources = [source for source in NAMES if (df["source"] == source).any()]
    targets = {source: _some(df[df["source"] == source]) for source in sources}
    rows = layout.arrange(4, wide=4, narrow=2)
    fig, every = layout.make_figure(
        df,
        title="Critical batch size, from runs that ended",
        caption=_words(df),
        columns=rows * len(sources),
        heights=1.6,
        legend=_legend(df, targets),
    )
    for at, source in enumerate(sources):
        *examples, over_target, over_data = every[4 * at : 4 * at + 4]
        mine = df[df["source"] == source]
        means = mine[(mine["panel"] == EXAMPLES) & (mine["kind"] == "mean")]
        all_sizes = sorted({int(x) for x in means["x"]})
        means = means[means["metric"].astype(str).isin(targets[source])]
        sizes = sorted({int(x) for x in means["x"]})
        limits = (means["value"].min() / 1.5, means["value"].max() * 1.5)
        styles = dict(zip(targets[source], ORDERED_STYLES, strict=False))
        for loss, axes in zip(LOSSES, examples, strict=True):
            part = mine[(mine["series"] == loss) & (mine["panel"] == EXAMPLES)]
            _draw_examples(axes, part, styles, sizes, limits)
            axes.set_title(f"{loss}, {NAMES[source]}", loc="left")
        examples[0].set_ylabel("examples to target")
        for panel, axes in ((OVER_TARGET, over_target), (OVER_DATA, over_data)):
            _draw_critical(axes, mine[mine["panel"] == panel], all_sizes)
        over_target.set_ylabel("$B_{crit}$")
        over_target.set_xlabel("target (%)")
        over_data.set_xlabel("$E_{min}$ (examples)")
    return fig


# --- numbers --------------------------------------------------------------------------------------


def _our_grids(inputs: Inputs, by_budget: Mapping[int, Panel]) -> dict[str, QualityGrid]:
    done = [panel.done for panel in by_budget.values() if len(panel.done)]
    if not done:
        return {}
    metric = inputs.quality_of(inputs.cells)
    cells = points.with_metric(pd.concat(done), metric)
    grids = {}
    for loss, mine in cells.groupby("loss.kind"):
        columns = ["batch_size", "budget.examples"]
        values = {(int(b), float(d)): v for (b, d), v in by_group(mine, columns, metric).items()}
        if values:
            grids[str(loss)] = draw_quality(values, items=items_by(inputs, mine, columns, metric))
    return grids


@functools.cache
def _paper_rows() -> list[Row]:
    """Of Table 8, with the largest run-to-run deviation of Table 7: it has one seed."""
    cells = as_cells.cells()
    mine = cells[cells["data.dataset"] == as_cells.SIGLIT["data.dataset"]]
    grids = {
        loss: draw_quality(
            {
                (int(b), float(d)): [float(value)]
                for b, d, value in part[["batch_size", "examples", TOP1]].itertuples(index=False)
            },
            spread=as_cells.run_noise(),
        )
        for loss, part in mine.groupby("loss.kind")
    }
    return _rows(grids, "paper")


def _rows(grids: Mapping[str, QualityGrid], source: str) -> list[Row]:
    rows: list[Row] = []
    targets = choose_targets(list(grids.values())) if grids else []
    for loss, grid in grids.items():
        common = {"source": source, "series": loss}
        for target in targets:
            for size, (value, drawn) in examples_to(grid, target).items():
                low, high = (np.nan, np.nan) if drawn is None else interval(drawn)
                rows.append(
                    common
                    | {"panel": EXAMPLES, "kind": "mean", "x": size, "value": value, "low": low}
                    | {"high": high, "n": round(value / size), "metric": f"{target:g}"}
                )
        for form in CRITICAL_FORMS:
            fits = [fit for target in targets if (fit := fit_critical_batch(grid, target, form))]
            rows += [common | row for fit in fits for row in _fit_rows(fit)]
            if trend := fit_trend(fits):
                span = (
                    f"{len(trend.targets)} targets, {trend.targets[0]:g} to {trend.targets[-1]:g}"
                )
                closer = {"data": "E_min", "error": "the error"}.get(trend.closer)
                told = f"nearer to a power of {closer}" if closer else "no form is nearer"
                rows += [
                    common
                    | {"panel": OVER_DATA, "kind": "trend", "metric": f"{form}: {name}"}
                    | {"value": ends[0], "low": ends[1], "high": ends[2], "id": f"{span}; {told}"}
                    for name, ends in (("E_min", trend.data), ("error", trend.error))
                ]
    return rows


def _fit_rows(fit: CriticalBatch) -> list[Row]:
    sizes = ", ".join(style.format_size(size) for size in fit.sizes)
    state = "identified" if fit.identified else "not identified"
    words = f"{state} by B = {sizes}; shortest run {fit.fewest_steps:,.0f} steps"
    result = {"kind": "critical", "value": fit.batch, "low": fit.low, "high": fit.high}
    result |= {"n": len(fit.sizes), "metric": fit.form, "id": words}
    rows: list[Row] = [
        result | {"panel": OVER_TARGET, "x": fit.target},
        result | {"panel": OVER_DATA, "x": fit.examples_min},
    ]
    if fit.form == "hyperbola":
        sizes_G = np.geomspace(fit.sizes[0], fit.sizes[-1], 30)
        rows += [
            {"panel": EXAMPLES, "kind": "fit", "x": x, "value": y, "metric": f"{fit.target:g}"}
            for x, y in zip(sizes_G, fit.curve(sizes_G), strict=True)
        ]
    return rows


# --- marks ----------------------------------------------------------------------------------------


def _some(df: pd.DataFrame) -> list[str]:
    """A low, a middle and a high target, of those with a fit if there are any."""
    top = df[df["panel"] == EXAMPLES]
    fitted = top[top["kind"] == "fit"]
    targets = sorted({str(t) for t in (fitted if len(fitted) else top)["metric"]}, key=float)
    at = np.linspace(0, len(targets) - 1, min(DRAWN_TARGETS, len(targets))).round().astype(int)
    return [targets[i] for i in at]


def _legend(df: pd.DataFrame, targets: Mapping[str, Sequence[str]]) -> list[Line2D]:
    """The losses, the targets of each source, and the guide."""
    handles = [STYLES[loss].handle(loss, linestyle="") for loss in LOSSES]
    several = len(targets) > 1
    for at, look in enumerate(ORDERED_STYLES[:DRAWN_TARGETS]):
        words = [
            f"{NAMES[key]} {own[at]} %" if several else f"{own[at]} %"
            for key, own in targets.items()
            if at < len(own)
        ]
        if words:
            handles.append(look.handle(", ".join(words), linestyle=""))
    if (df["panel"] == OVER_DATA).any():
        handles.append(Line2D([], [], label=f"slope {ZHANG}", **GUIDE))
    return handles


def _draw_examples(
    axes: Axes,
    df: pd.DataFrame,
    styles: Mapping[str, SeriesStyle],
    sizes: Sequence[int],
    limits: tuple[float, float],
) -> None:
    for target, look in styles.items():
        mine = df[df["metric"].astype(str) == target]
        means = style.means(mine)
        style.line(axes, means, look, linestyle=":", linewidth=0.7)
        style.bars(axes, means, look)
        style.line(axes, mine[mine["kind"] == "fit"], look, linestyle="-")
        for short, part in means.groupby(means["n"].astype(float) < FEWEST_STEPS):
            face: dict[str, Any] = {"markerfacecolor": "white"} if short else {}
            style.line(axes, part, look, linestyle="", marker=look.marker, **face)
    axes.set_ylim(*limits)
    style.plain_log(axes)
    axes.set_ylim(*limits)
    axes.set_xlim(sizes[0] / 1.6, sizes[-1] * 1.6)
    style.batch_axis(axes, sizes)


def _draw_critical(axes: Axes, df: pd.DataFrame, sizes: Sequence[int]) -> None:
    """Filled: identified. Crosses: the form with negatives. What lies outside is at the edge."""
    hyperbola = df["metric"] == "hyperbola"
    known = df["id"].astype(str).str.startswith("identified")
    fits = df[(df["kind"] == "critical") & (hyperbola | known | ~known.any())]
    if fits.empty:
        axes.text(0.5, 0.5, "no fit", transform=axes.transAxes, ha="center")
        axes.set(xticks=[], yticks=[])
        return
    low, high = sizes[0] / 2, sizes[-1] * 4
    if (fits["panel"] == OVER_DATA).all():
        _draw_guide(axes, fits[fits["value"].between(low, high)])
    for loss in LOSSES:
        look = STYLES[loss]
        for _, row in fits[fits["series"] == loss].iterrows():
            at = ([row["x"]], [float(np.clip(row["value"], low, high))])
            if row["metric"] != "hyperbola":
                axes.plot(*at, marker="x", markersize=3.5, color=look.colour)
                continue
            face = look.colour if known[row.name] else "white"
            if np.isfinite(row["low"]):
                ends = np.clip([row["low"], row["high"]], low, high)
                axes.plot([row["x"]] * 2, ends, color=look.colour, linewidth=0.8)
            axes.plot(*at, marker=look.marker, color=look.colour, markerfacecolor=face)
    shown = np.clip(fits["value"].astype(float), low, high)
    axes.set_ylim(shown.min() / 1.8, shown.max() * 3)
    axes.margins(x=0.08)
    if axes.get_xscale() == "linear":
        targets = sorted(set(fits["x"]))
        axes.set_xticks(targets[:: -(-len(targets) // 4)])
    ends = np.log2(axes.get_ylim())
    powers = 2.0 ** np.arange(np.ceil(ends[0]), np.floor(ends[1]) + 1)
    style.batch_axis(axes, powers.tolist(), axis="y")
    axes.set_ylabel("")


def _draw_guide(axes: Axes, fits: pd.DataFrame) -> None:
    """The slope of language models, through the middle of the points."""
    style.plain_log(axes, "x")
    if fits.empty:
        return
    x = np.array([fits["x"].min(), fits["x"].max()], float)
    if x[1] < 3 * x[0]:
        ticks = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(*x)
        axes.xaxis.set_major_locator(FittingLocator(every_other(ticks), style.format_count))
    elif x[1] < 10 * x[0]:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=4))
    middle = np.exp(np.log(fits[["x", "value"]].astype(float)).mean())
    axes.plot(x, middle["value"] * (x / middle["x"]) ** ZHANG, **GUIDE)


def _words(df: pd.DataFrame) -> list[str]:
    words = [
        "Examples: final quality interpolated between budgets; bars: 95 % bootstrap interval over "
        "seeds and, where records hold them, evaluated examples; hollow: a run to the target would "
        f"have fewer than {FEWEST_STEPS} steps. Lines: E = E_min + S_min B (McCandlish 2018) from "
        "the batch size with the fewest examples on; B_crit = E_min / S_min, hollow where its "
        "interval leaves those sizes. Crosses: E = E_min + S_min B + C B^-a, all sizes. Growth: "
        "m is 0.47 for language models (Zhang 2025); the other form is a power of the error "
        "(Kaplan 2020). With one size of model, target and data move together."
    ]
    for source, name in NAMES.items():
        for loss in LOSSES:
            mine = df[(df["source"] == source) & (df["series"] == loss)]
            if (mine["kind"] == "critical").any():
                words.append(f"{name[0].upper()}{name[1:]}, {loss}: {_result(mine)}.")
    return words


def _result(df: pd.DataFrame) -> str:
    """B_crit at the hardest target that identifies it, and how it grows, in words."""
    fits = df[(df["panel"] == OVER_TARGET) & (df["metric"] == "hyperbola")]
    good = fits[fits["id"].astype(str).str.startswith("identified")]
    if not len(good):
        return f"B_crit not identified ({len(fits)} target{'s' if len(fits) > 1 else ''})"
    last = good.loc[good["x"].astype(float).idxmax()]
    text = f"B_crit {last['value']:,.0f} [{last['low']:,.0f}, {last['high']:,.0f}] at "
    text += f"{last['x']:g} %, {len(good)} of {len(fits)} targets identified"
    steps = [str(words).rpartition("shortest run ")[2] for words in good["id"]]
    text += f", runs down to {min(steps, key=lambda words: int(words.split()[0].replace(',', '')))}"
    trends = df[(df["kind"] == "trend") & (df["metric"] == "hyperbola: E_min")]
    for _, row in trends.iterrows():
        text += f"; B_crit ~ E_min^m, m = {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        text += f" ({row['id']})"
    return text


to_target = Plot("to_target", data, draw)
