"""Quality over training FLOPs, the Pareto front of each loss, and what part of it the pairs take.

Cells: those of every budget of an image tower, by their fields (see `panels.by_budget`), and the
paper's Tables 8 and 5 with the FLOPs that `study plan` counts for their cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.batch_size import TOWERS
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import LOSSES, STYLES
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
        if TOWER_FLOPS in cells and cells[TOWER_FLOPS].notna().any():
            rows += _rows(cells[cells[TOWER_FLOPS].notna()], tower, "ours", metric)
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
        why="the FLOPs of its cells are not known; they come with a study's grid",
    )


@style.styled
def draw(df: pd.DataFrame) -> Figure:
    """A column for each source. For each tower quality and the batch sizes of the front over FLOPs;
    the share of the pairs below."""
    sources = [source for source in ("ours", "paper") if (df["source"] == source).any()]
    towers = [tower for tower in PAPER if (df["panel"] == tower).any()]
    fig, (head, *every) = layout.make_figure(
        heights=[0.2, *[1.4, 1.1] * len(towers), 1.3],
        columns=[1, *[len(sources)] * (2 * len(towers) + 1)],
        title="Quality over training FLOPs",
        caption=layout.caption_of(df, *_words(df)),
        footer=df.attrs.get("provenance", ""),
    )
    layout.legend_row(head, [STYLES[loss].handle(loss) for loss in LOSSES], columns=2)
    for column, source in enumerate(sources):
        mine = df[df["source"] == source]
        *fronts, share = every[column :: len(sources)]
        for tower, quality, batch in zip(towers, fronts[::2], fronts[1::2], strict=True):
            if not (mine["panel"] == tower).any():
                quality.set_axis_off()
                batch.set_axis_off()
                continue
            _draw_front(quality, batch, mine[mine["panel"] == tower])
            name = tower if source == "ours" else f"the paper's {PRINTED[tower]}"
            quality.set_title(name, loc="left")
            batch.set_ylabel("" if column else "batch size")
            if source == "paper":
                quality.set_ylabel("")
        _draw_share(share, mine[mine["panel"] == SHARE], towers)
        share.set_ylabel("" if column else "pairs, % of FLOPs")
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
            batch.plot([x], [size], marker=look.marker, markersize=3.5, color=look.colour,
                       markerfacecolor=face)  # fmt: skip
    if len(front):
        low, high = front["value"].min(), front["value"].max()
        quality.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
        quality.set_ylabel(style.metric_label(str(df["metric"].iloc[0])).partition("\n")[0])
    style.plain_log(batch)
    batch.yaxis.set_major_locator(LogLocator(base=2, numticks=5))
    batch.yaxis.set_major_formatter(FuncFormatter(lambda value, _: style.format_size(value)))
    for axes in (quality, batch):
        axes.set_xscale("log")
        axes.minorticks_off()
    batch.set_xlim(quality.get_xlim())
    for axes in (quality, batch):
        style.thin_ticks(axes)
    batch.set_xlabel("FLOPs of a run")


def _draw_share(axes: Axes, df: pd.DataFrame, towers: list[str]) -> None:
    sizes = sorted({int(x) for x in df["x"]})
    for loss in LOSSES:
        for tower, line in zip(towers, ("-", ":"), strict=False):
            mine = df[(df["series"] == loss) & (df["id"] == tower)]
            style.line(axes, mine, STYLES[loss], linestyle=line)
    axes.axhline(50, color=style.GREY, linewidth=0.6)
    axes.set_ylim(0, 100)
    if sizes:
        style.narrow_batch_axis(axes, sizes)


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
