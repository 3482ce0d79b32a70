"""Quality over training FLOPs, the Pareto front of each loss, and what part of it the pairs take.

Cells: those of every budget of an image tower, by their fields (see `panels.by_budget`), and the
paper's Tables 8 and 5 with the FLOPs that `study plan` counts for their cells.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatterSciNotation, NullLocator

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.batch_size import TOWERS
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import LOSSES, STYLES
from analysis.figures.plot.ticks import Choice, FittingLocator
from analysis.paper import as_cells
from analysis.select import panels
from analysis.select.fields import TOP1
from analysis.select.panels import Panel
from analysis.stats import draw_means, pareto_front
from analysis.stats.intervals import by_group

TOWER_FLOPS, PAIR_FLOPS = "flops.towers", "flops.loss"  # columns, of one step
PAPER = {"SigLiT": as_cells.SIGLIT, "from scratch": as_cells.SIGLIP}
PRINTED = {"SigLiT": "Table 8", "from scratch": "Table 5"}
SHARE = "share of pairs"
FEWEST_SIZES = 3
WHY = f"no {FEWEST_SIZES} batch sizes with quality and FLOPs, which are counted from a study's grid"
OFTEN = 50  # of 100 draws: a point that is on the front in fewer is hollow


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is the tower. Kind "mean": x is the FLOPs of a run, value the quality, series the loss,
    n how many seeds, id batch size and examples ("256, 1M"). "front": those that nothing beats at
    its FLOPs or fewer, n in how many of 100 draws.

    Panel "share of pairs": x is the batch size, value the percentage of the FLOPs that are the
    loss, id the tower.
    """
    rows: list[Row] = []
    used: list[Panel] = []
    metric = inputs.quality_of(inputs.cells)
    for image, tower in TOWERS.items():
        by_budget = inputs.select(panels.by_budget, image=image)
        done = [panel.done for panel in by_budget.values()]
        cells = points.with_metric(pd.concat(done), metric) if done else pd.DataFrame()
        if TOWER_FLOPS not in cells:
            continue
        cells = cells[cells[TOWER_FLOPS].notna()]
        if cells["batch_size"].nunique() >= FEWEST_SIZES:
            rows += _rows(cells, tower, "ours", metric)
            used += by_budget.values()
    if rows or not len(inputs.cells):
        printed = as_cells.cells()
        printed = printed[printed[TOWER_FLOPS].notna()]
        for tower, fields in PAPER.items():
            theirs = printed[printed["data.dataset"] == fields["data.dataset"]]
            rows += _rows(theirs, tower, "paper", TOP1, spread=as_cells.run_noise())
    return points.make_table(
        points.round_results(rows),
        panels=used,
        why=WHY,
    )


def draw(df: pd.DataFrame) -> StudyFigure:
    """For each tower and source quality and the batch sizes of the front over FLOPs; then the share
    of the pairs."""
    sources = [source for source in ("ours", "paper") if (df["source"] == source).any()]
    fronts = df[df["panel"] != SHARE]
    parts = [
        (source, tower, part)
        for tower in PAPER
        for source in sources
        if len(part := fronts[(fronts["source"] == source) & (fronts["panel"] == tower)])
    ]
    columns = layout.arrange(len(parts), wide=4, narrow=2)
    fig, every = layout.make_figure(
        df,
        title="Quality over training FLOPs",
        caption=_words(df),
        columns=[*(count for count in columns for _ in range(2)), len(sources)],
        heights=[*[1.5, 1.2] * len(columns), 1.5],
        stretch=True,
        legend=[STYLES[loss].handle(loss) for loss in LOSSES],
    )
    first = 0
    for count in columns:
        row, below = every[first : first + count], every[first + count : first + 2 * count]
        for quality, batch, (source, tower, part) in zip(row, below, parts, strict=False):
            _draw_front(quality, batch, part)
            quality.set_title(tower if source == "ours" else PRINTED[tower], loc="left")
        below[0].set_ylabel("batch size")
        parts, first = parts[count:], first + 2 * count
    for source, axes in zip(sources, every[first:], strict=True):
        _draw_share(axes, df[(df["source"] == source) & (df["panel"] == SHARE)])
        axes.set_title("ours" if source == "ours" else "the paper", loc="left")
    every[first].set_ylabel("pairs, % of FLOPs")
    return fig


# --- numbers --------------------------------------------------------------------------------------


def _rows(
    cells: pd.DataFrame,
    tower: str,
    source: str,
    metric: str,
    *,
    spread: tuple[float, int] | None = None,
) -> list[Row]:
    rows: list[Row] = []
    columns = ["batch_size", "budget.examples"]
    for loss, mine in cells.groupby("loss.kind"):
        flops = mine.groupby(columns)[[TOWER_FLOPS, PAIR_FLOPS]].first().astype(float)
        values = by_group(mine, columns, metric)
        keys = sorted(values)
        drawn = draw_means({i: values[key] for i, key in enumerate(keys)}, spread=spread)
        cost_N = np.array([flops.loc[key].sum() * key[1] / key[0] for key in keys])
        front_N = pareto_front(cost_N, drawn.mean_K[None])[0]
        often_N = np.full(len(keys), np.nan)
        if drawn.drawn_RxK is not None:
            often_N = 100 * pareto_front(cost_N, drawn.drawn_RxK).mean(axis=0)
        common = {"source": source, "series": str(loss), "metric": metric}
        for i, (size, examples) in enumerate(keys):
            name = f"{style.format_size(size)}, {style.format_count(examples)}"
            point = common | {"panel": tower, "x": cost_N[i], "value": drawn.mean_K[i], "id": name}
            rows.append(point | {"kind": "mean", "n": len(values[size, examples])})
            if front_N[i]:
                rows.append(
                    point | {"kind": "front"}
                    | ({} if np.isnan(often_N[i]) else {"n": round(often_N[i])})
                )  # fmt: skip
        share = 100 * flops[PAIR_FLOPS] / (flops[TOWER_FLOPS] + flops[PAIR_FLOPS])
        rows += [
            common | {"panel": SHARE, "kind": "mean", "x": int(size), "value": value, "id": tower}
            for size, value in share.groupby(level="batch_size").first().items()
        ]
    return rows


# --- marks ----------------------------------------------------------------------------------------


def _draw_front(quality: Axes, batch: Axes, df: pd.DataFrame) -> None:
    front = df[df["kind"] == "front"].sort_values("x")
    for loss in LOSSES:
        look, mine = STYLES[loss], front[front["series"] == loss]
        all_runs = style.means(df)
        faint: dict[str, Any] = {"linestyle": "", "marker": look.marker, "markersize": 2.5}
        style.line(quality, all_runs[all_runs["series"] == loss], look, **faint, alpha=0.4)
        style.line(quality, mine, look, marker=look.marker, markersize=3.5)
        sizes = [style.parse_size(str(name).partition(", ")[0]) for name in mine["id"]]
        for x, size, often in zip(mine["x"], sizes, mine["n"].astype(float), strict=True):
            face = "white" if often < OFTEN else look.colour
            wide, above = (2.5, 4) if loss == "sigmoid" else (4.5, 3)  # one inside the other
            batch.plot([x], [size], marker=look.marker, markersize=wide, color=look.colour,
                       markerfacecolor=face, zorder=above)  # fmt: skip
    if len(front):
        low, high = front["value"].min(), front["value"].max()
        quality.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
        label = style.metric_label(str(df["metric"].iloc[0])).partition("\n")[0]
        quality.set_ylabel(label.removeprefix("zero-shot "))
    style.batch_axis(batch, [style.parse_size(x.partition(", ")[0]) for x in front["id"]], axis="y")
    batch.set_ylabel("")
    batch.margins(y=0.15)
    for axes in (quality, batch):
        axes.set_xscale("log")
    batch.set_xlim(quality.get_xlim())
    for axes in (quality, batch):
        _label_flops(axes)
    quality.tick_params(labelbottom=False)
    batch.set_xlabel("FLOPs of a run")


def _label_flops(axes: Axes) -> None:
    """Ticks at 1, 2, 5 times a power of ten where there is room, at 1 and 3, or at the powers."""
    low, high = axes.get_xlim()
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high))
    choices: list[Choice] = [
        ([t for power in powers for digit in digits if low <= (t := digit * power) <= high], ())
        for digits in ((1, 2, 5), (1, 3), (1,))
    ]
    everywhere = (math.inf, math.inf)  # label what is not a power of ten, however long the axis
    formatter = LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=everywhere)
    axes.xaxis.set_major_locator(FittingLocator(choices, lambda x: f"{x:.0e}".replace("e", "x1")))
    axes.xaxis.set_major_formatter(formatter)
    axes.xaxis.set_minor_locator(NullLocator())


def _draw_share(axes: Axes, df: pd.DataFrame) -> None:
    sizes = sorted({int(x) for x in df["x"]})
    for loss in LOSSES:
        for tower, line in zip(PAPER, ("-", ":"), strict=True):
            mine = df[(df["series"] == loss) & (df["id"] == tower)]
            style.line(axes, mine, STYLES[loss], linestyle=line)
    axes.axhline(50, color=style.GREY, linewidth=0.6)
    axes.set_ylim(0, 100)
    if sizes:
        style.batch_axis(axes, sizes)


def _words(df: pd.DataFrame) -> list[str]:
    words = [
        "Lines: Pareto front of each loss over batch sizes and budgets; below them the batch sizes "
        "on it, hollow where fewer than half of the bootstrap draws over seeds have them there. "
        "Pairs: solid SigLiT, dotted from scratch. FLOPs as planned: towers and pairs, without "
        "recomputation and without image embeddings that are made once."
    ]
    for source, name in (("ours", "our cells"), ("paper", "the paper's cells")):
        share = df[(df["source"] == source) & (df["panel"] == SHARE) & (df["series"] == "sigmoid")]
        halves = {tower: half for tower, mine in share.groupby("id") if (half := _half(mine))}
        if halves:
            sizes = ", ".join(f"{half:,.0f} ({tower})" for tower, half in halves.items())
            words.append(f"Pairs are half of the FLOPs of {name}, sigmoid, at B = {sizes}.")
    return words


def _half(df: pd.DataFrame) -> float | None:
    """The batch size at which pairs are half of the FLOPs: their ratio grows as the batch."""
    share = df["value"].to_numpy(float) / 100
    if not len(share) or share.max() < 0.1:
        return None
    return float(np.median(df["x"].to_numpy(float) * (1 - share) / share))


compute = Plot("compute", data, draw)
