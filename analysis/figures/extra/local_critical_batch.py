"""The loss of branches by batch size at several points of a run, and the local critical batch.

Cells: see `analysis.select.branches.branch_points`; the measure: see
`analysis.stats.local_critical_batch`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.claims.branches import as_batch, local_batches, smooth_losses, val_loss_of
from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import ORDERED_STYLES, STYLES
from analysis.select import branches, panels
from analysis.stats.intervals import group_means
from analysis.stats.local_critical_batch import TOLERANCE

CRITICAL = "local critical batch"


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is an arm (`branches.ARMS`), series the examples before the branches, value the loss.

    x is the batch size. In the panel `CRITICAL` series is the arm, x the examples before the
    branches, value the batch size. A seed's is of kind "at least" where no batch size tried is too
    large.
    """
    panel = inputs.select(branches.branch_points)
    metric = val_loss_of(panel.done)
    if metric is None:
        return points.make_table([])
    done = smooth_losses(panel.done, inputs.rows, metric)
    done = done.assign(series=done[branches.AT].astype(int), x=done["batch_size"])
    rows: list[Row] = []
    for arm, cells in branches.by_arm(done).groupby("arm"):
        rows += points.our_points(cells, str(arm), metric)
    rows += points.round_results(_critical(done, metric))
    return points.make_table(
        rows,
        panels=[panel],
        missing=points.without_metric(panel, metric),
        title=panels.title(panel),
    )


def _critical(done: pd.DataFrame, metric: str) -> list[Row]:
    measured = local_batches(done, metric)
    common: Row = {"panel": CRITICAL, "source": "ours", "metric": metric}
    groups: dict[Any, list[float]] = {}
    rows = []
    for one in measured:
        groups.setdefault((one.arm, one.examples), []).append(one.doublings)
        rows.append(
            common
            | {"series": one.arm, "x": one.examples, "value": 2**one.doublings, "seed": one.seed}
            | {"kind": "seed" if one.known else "at least"}
        )
    means = group_means(groups)
    for arm, examples in sorted(means.means):
        mean = as_batch(means.mean((arm, examples)))
        rows.append(
            common
            | {"series": arm, "x": examples, "kind": "mean", "n": means.counts[arm, examples]}
            | {"value": mean.estimate, "low": mean.low, "high": mean.high}
        )
    return rows


def draw(df: pd.DataFrame) -> StudyFigure:
    """A panel for each arm, with a line for each point, and one for the critical batch."""
    df = df.assign(x=df["x"].astype(int), series=df["series"].astype(str))
    of_arms = df[df["panel"] != CRITICAL]
    arms = [arm for arm in branches.ARMS if (of_arms["panel"] == arm).any()]
    starts = sorted({int(at) for at in of_arms["series"]})
    looks = dict(zip(starts, ORDERED_STYLES, strict=False))
    sizes = sorted(set(of_arms["x"]))
    critical = df[df["panel"] == CRITICAL]
    legend = [look.handle(f"after {style.format_count(at)}") for at, look in looks.items()]
    legend += [STYLES[arm].handle(arm) for arm in arms] if len(critical) else []
    names = [*arms, *([CRITICAL] if len(critical) else [])]
    columns = layout.arrange(len(names), wide=3)
    fig, every = layout.make_figure(
        df,
        title="Branches at several batch sizes, and the batch size that costs nothing",
        caption=_words(df, sizes),
        columns=columns,
        heights=1.9,
        legend=legend,
    )
    for axes, name in zip(every, names, strict=True):
        mine = df[df["panel"] == name]
        if name == CRITICAL:
            _draw_critical(axes, mine, arms, sizes)
            axes.set_title(CRITICAL, loc="left")
            continue
        for at, look in looks.items():
            part = mine[mine["series"] == str(at)]
            style.dots(axes, part, look)
            style.line(axes, style.means(part), look)
        axes.set_title(name, loc="left")
        axes.set_ylabel("validation loss (softmax)")
        style.plain_log(axes)
        style.batch_axis(axes, sizes)
    layout.share_limits(every[: len(arms)])
    return fig


def _draw_critical(axes: Any, mine: pd.DataFrame, arms: list[str], sizes: list[int]) -> None:
    for i, arm in enumerate(arms):
        part = mine[mine["series"] == arm]
        part = part.assign(x=part["x"] * 1.08 ** (i - (len(arms) - 1) / 2))
        look = STYLES[arm]
        style.dots(axes, part, look)
        bounds = part[part["kind"] == "at least"]
        axes.plot(bounds["x"], bounds["value"], "^", color=look.colour, markersize=3.5)
        means = style.means(part).sort_values("x")
        style.line(axes, means, look)
        style.bars(axes, means, look)
    axes.set_xscale("log")
    style.examples_axis(axes, sorted(set(mine["x"])))
    axes.set_xlabel("examples before the branches")
    axes.set_ylabel("batch size")
    axes.set_ylim(sizes[0] / 1.3, sizes[-1] * 1.3)
    style.batch_axis(axes, sizes, axis="y")


def _words(df: pd.DataFrame, sizes: list[int]) -> list[str]:
    words = [
        "Branches of one checkpoint see the same examples. Softmax loss on a fixed validation "
        "batch, for both losses, smoothed over the evaluations of a branch. "
        f"{points.count_seeds(df[df['panel'] != CRITICAL])}: dots; lines: their means.",
        f"Local critical batch: the largest whose loss is within {TOLERANCE:g} of that of every "
        "smaller one (Merrill et al., arXiv 2505.23971), between two sizes by a line. Bars: 95 % t "
        "intervals over seeds; they do not say where between two sizes it is.",
    ]
    if (df["panel"] == branches.SHIFTED).any():
        words.append(
            "Shifted bias: at the start of a branch the learned bias moves with the log odds of a "
            "positive, from the parent's batch size to its own."
        )
    if (df["kind"] == "at least").any():
        words.append(
            f"Triangles: B = {style.format_size(sizes[-1])}, the largest tried, costs nothing; "
            "means take it as the critical batch."
        )
    return words


local_critical_batch = Plot("local_critical_batch", data, draw)
