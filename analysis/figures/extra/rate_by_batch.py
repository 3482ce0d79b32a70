"""Quality by learning rate at each batch size, and the optimum between the rates tried.

Cells: those of the seeds that search, see `select.rate_searches`, judged on the validation split
where it was measured, so that the test split chooses nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.batch_size import TOWERS
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import LOSSES, STYLES
from analysis.select.deciding import FEWEST_STEPS
from analysis.select.panels import Panel
from analysis.select.rate_rule import RATE, SEARCH
from analysis.select.rate_searches import rate_searches, repeated
from analysis.select.tried_rates import VALIDATION
from analysis.stats import BestRate, fit_best_rate, fit_rate_exponent
from analysis.stats.intervals import by_group, group_means

LONG, EVERY = f"{FEWEST_STEPS} steps or more", "all"
NOISE_KEYS = ("batch_size", "budget.examples", "budget.pairs", "budget.steps", RATE)


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is the tower. Kinds "seed" and "mean": x is the learning rate, series loss and batch
    size ("sigmoid 256"), value the quality; "fit": points of the parabola through the best three.

    Kind "best": x is the batch size, value the optimum with its interval, series the loss, n how
    many rates were tried, id whether that is an edge and how many steps a run has. Kind "exponent":
    value is a of `rate ~ B^a` with its interval, x the rate at B = 1, n and id the batch sizes of
    the fit.
    """
    rows: list[Row] = []
    used: list[Panel] = []
    missing: list[str] = []
    metric = VALIDATION
    if metric not in inputs.cells or not inputs.cells[metric].notna().any():
        metric = inputs.quality
    for image, tower in TOWERS.items():
        for loss, panel in inputs.select(rate_searches, image=image).items():
            used.append(panel)
            missing += points.without_metric(panel, metric)
            rows += _search_rows(inputs, panel, tower, loss, metric)
    budgets = sorted({int(x) for panel in used for x in panel.cells["examples"].dropna()})
    return points.make_table(
        rows,
        panels=used,
        missing=missing,
        title=f"searches of {', '.join(f'{budget:,}' for budget in budgets)} examples",
        why=f"no batch size has cells of one seed that ended at {SEARCH} learning rates",
    )


def draw(df: pd.DataFrame) -> StudyFigure:
    """For each tower the responses by loss, and the optima over batch size."""
    towers = list(dict.fromkeys(df["panel"]))
    sizes = sorted({int(x) for x in df.loc[df["kind"] == "best", "x"]})
    styles = style.batch_size_styles(sizes)
    handles = [STYLES[loss].handle(loss) for loss in LOSSES]
    handles += [
        look.handle(f"{'' if i else 'B = '}{style.format_size(size)}", linestyle="")
        for i, (size, look) in enumerate(styles.items())
    ]
    rows = [3] if style.current_page().wide else [2, 1]
    fig, every = layout.make_figure(
        df,
        title="Best learning rate by batch size",
        caption=_words(df),
        columns=rows * len(towers),
        heights=1.7,
        stretch=True,
        legend=handles,
    )
    for at, tower in enumerate(towers):
        *responses, optima = every[3 * at : 3 * at + 3]
        mine = df[df["panel"] == tower]
        for loss, axes in zip(LOSSES, responses, strict=True):
            _draw_responses(axes, mine, loss, styles)
            axes.set_title(f"{tower}, {loss}", loc="left")
        layout.share_limits(responses, "x")
        layout.share_y(responses, [2])
        responses[0].set_ylabel(style.metric_label(mine["metric"].iloc[0]))
        _draw_optima(optima, mine)
        optima.set_title(tower, loc="left")
    return fig


def _search_rows(inputs: Inputs, panel: Panel, tower: str, loss: str, metric: str) -> list[Row]:
    done = points.with_metric(panel.done, metric)
    common = {"panel": tower, "source": "ours", "metric": metric}
    noise = _noise(inputs.cells, panel, metric)
    rows: list[Row] = []
    best: dict[int, BestRate] = {}
    for size, mine in done.groupby("batch_size"):
        quality = by_group(mine, [RATE], metric)
        fit = fit_best_rate(quality, noise=noise)
        if fit is None:
            continue
        best[int(size)] = fit
        series = {"series": f"{loss} {size}"}
        for rate, values in sorted(quality.items()):
            rows.append(
                common | series | {"kind": "mean", "x": rate, "n": len(values)}
                | {"value": float(np.mean(values))}
            )  # fmt: skip
        rows += [
            common | series
            | {"kind": "seed", "x": row[RATE], "value": row[metric]}
            | {"seed": row["seed"], "id": row["id"]}
            for _, row in mine.iterrows()
        ]  # fmt: skip
        if fit.parabola is not None:
            rates = sorted(quality)
            at = max(range(len(rates)), key=lambda i: np.mean(quality[rates[i]]))
            for x in np.geomspace(rates[at - 1], rates[at + 1], 21):
                value = float(np.polyval(fit.parabola, math.log(x)))
                rows.append(common | series | {"kind": "fit", "x": x, "value": value})
        state = f"edge: {fit.edge} tried" if fit.edge else "inside"
        state += f"; {int(mine['steps'].min()):,} steps"
        rows.append(
            common | {"series": loss, "kind": "best", "x": int(size), "value": fit.rate}
            | {"low": fit.low, "high": fit.high, "n": fit.tried, "id": state}
        )  # fmt: skip
    steps = done.groupby("batch_size")["steps"].min()
    long = {size: fit for size, fit in best.items() if steps[size] >= FEWEST_STEPS}
    lines = {LONG: fit_rate_exponent(long), EVERY: fit_rate_exponent(best)}
    if lines[LONG] == lines[EVERY]:
        del lines[EVERY]
    for name, line in lines.items():
        if line:
            sizes = ", ".join(style.format_size(size) for size in line.sizes)
            rows.append(
                common | {"series": loss, "kind": "exponent", "x": line.scale, "value": line.a}
                | {"low": line.low, "high": line.high, "n": len(line.sizes)}
                | {"id": f"{name}: B = {sizes}"}
            )  # fmt: skip
    return rows


def _noise(cells: pd.DataFrame, panel: Panel, metric: str) -> tuple[float, int] | None:
    """Standard deviation between seeds and its degrees of freedom, from cells like those of the
    search; None where no two of them differ in the seed alone."""
    same = repeated(cells, panel)
    keys = [key for key in NOISE_KEYS if key in same]
    pooled = group_means(by_group(same, keys, metric))
    return (math.sqrt(pooled.variance), pooled.dof) if pooled.dof else None


def _draw_responses(axes: Axes, df: pd.DataFrame, loss: str, styles: Any) -> None:
    for size, look in styles.items():
        mine = df[df["series"] == f"{loss} {size}"]
        means = style.means(mine)
        thin: dict[str, Any] = {"linestyle": ":", "linewidth": 0.7, "marker": look.marker}
        style.line(axes, means, look, markersize=3, **thin)
        style.line(axes, mine[mine["kind"] == "fit"], look, linestyle="-")
    style.plain_log(axes, "x")
    axes.xaxis.set_major_locator(LogLocator(numticks=4))
    axes.set_xlabel("learning rate")


def _draw_optima(axes: Axes, df: pd.DataFrame) -> None:
    best = df[df["kind"] == "best"]
    sizes = sorted({int(x) for x in best["x"]})
    tried = df.loc[df["kind"] == "mean", "x"].astype(float)
    low, high = tried.min() / 2, tried.max() * 2
    for loss, nudge in zip(LOSSES, (1 / 1.06, 1.06), strict=True):
        look, mine = STYLES[loss], best[best["series"] == loss]
        for _, row in mine.iterrows():
            edge = str(row["id"]).startswith("edge")
            x, face = row["x"] * nudge, "white" if edge else look.colour
            axes.plot([x], [row["value"]], marker=look.marker, color=look.colour,
                      markerfacecolor=face, linestyle="")  # fmt: skip
            if np.isfinite(row["low"]):
                ends = np.clip([row["low"], row["high"]], low, high)
                axes.plot([x, x], ends, color=look.colour, linewidth=0.8)
        lines = df[(df["kind"] == "exponent") & (df["series"] == loss)]
        for _, row in lines.iterrows():
            every = str(row["id"]).startswith(EVERY)
            fitted = sizes if every else [int(x) for x in mine["x"][~mine["id"].map(_is_short)]]
            x = np.array([min(fitted), max(fitted)], float)
            thin: dict[str, Any] = {"linewidth": 0.7, "linestyle": ":"} if every else {}
            line: dict[str, Any] = {"color": look.colour, "linestyle": look.line}
            axes.plot(x, row["x"] * x ** row["value"], **line | thin)
    short = [float(x) for x, words in zip(best["x"], best["id"], strict=True) if _is_short(words)]
    if short:
        axes.axvspan(min(short) / 2**0.5, sizes[-1] * 2, color="#f1f1f1", zorder=0)
        axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
    style.plain_log(axes)
    axes.set_ylabel("best rate")
    style.batch_axis(axes, sizes)


def _is_short(words: str) -> bool:
    """Whether a "best" row is of runs with fewer steps than a claim about batch size takes."""
    return (
        int(str(words).rpartition("; ")[2].removesuffix(" steps").replace(",", "")) < FEWEST_STEPS
    )


def _words(df: pd.DataFrame) -> list[str]:
    seeds = points.count_seeds(df, ["panel", "series", "x"])
    words = [
        f"{seeds} at each point. Optimum: vertex of the parabola through the "
        "best rate tried and its neighbours; bars: 95 %, noise between seeds. Lines: rate ~ B^a."
    ]
    for _, row in df[df["kind"] == "exponent"].iterrows():
        ends = f" [{row['low']:.2f}, {row['high']:.2f}]" if np.isfinite(row["low"]) else ""
        tower = f"{row['panel'][0].upper()}{row['panel'][1:]}"
        words.append(f"{tower}, {row['series']}, {row['id']}: a = {row['value']:.2f}{ends}.")
    best = df[df["kind"] == "best"]
    if not best["low"].notna().any():
        words.append("No intervals: no cells like these have several seeds.")
    if any(map(_is_short, best["id"])):
        words.append(f"Shaded: runs of fewer than {FEWEST_STEPS} steps; in the dotted lines only.")
    edges = [
        f"{row['panel']} {row['series']} B = {style.format_size(row['x'])}"
        for _, row in best[best["id"].astype(str).str.startswith("edge")].iterrows()
    ]
    if edges:
        words.append(
            f"Hollow: the best rate is at the edge of those tried, and a better one may lie beyond "
            f"({', '.join(edges)}); not in the fit."
        )
    return words


rate_by_batch = Plot("rate_by_batch", data, draw)
