"""Plans as CSV and figures: memory and days of every cell, and predicted against measured speed.

A plan is a table with one row per cell, as `study plan --json` prints them. The chips and days of
the paper are in its reference table.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.errors import AnalysisError
from analysis.figures.plot import layout, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.style import LOSSES, STYLES, SeriesStyle
from analysis.paper.reference import reference

CHIPS_AND_DAYS = re.compile(r"TPUv4 chips=(\d+);days=(\d+)")
GUIDE: Any = {"color": style.GREY, "linewidth": 0.8, "linestyle": (0, (4, 2))}


def write_plan(
    rows: Sequence[Mapping[str, Any]], out: str | Path, name: str, *, assumed: str = ""
) -> list[Path]:
    """Writes `<out>/<name>.csv`, the picture as PNG and PDF and its caption; of a plan with one
    batch size the CSV alone.

    Args:
      assumed: what the times rest on, for the caption.
    """
    plan = pd.DataFrame([dict(row) for row in rows])
    if name == "table-1":
        plan = with_paper_days(plan)
        return _write(plan, out, name, draw_days(plan, assumed))
    fig = draw_plan(plan, name, assumed) if plan["batch_size"].nunique() > 1 else None
    return _write(plan, out, name, fig)


def write_speed(rows: Sequence[Mapping[str, Any]], out: str | Path, name: str) -> list[Path]:
    """Writes `<out>/<name>-measured.csv` and its picture: predicted over measured examples/s.

    Args:
      rows: id, chip, chips, batch_size, loss, predicted_examples_per_s, measured_examples_per_s,
        and, where other cells on that chip were measured, calibrated_examples_per_s by them.
    """
    speed = pd.DataFrame([dict(row) for row in rows])
    return _write(speed, out, f"{name}-measured", draw_speed(speed))


def _write(table: pd.DataFrame, out: str | Path, name: str, fig: StudyFigure | None) -> list[Path]:
    csv = Path(out) / f"{name}.csv"
    csv.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(csv, index=False, lineterminator="\n")
    return [csv, *(layout.save(fig, csv.with_suffix("")) if fig else ())]


def with_paper_days(plan: pd.DataFrame) -> pd.DataFrame:
    """Table 1's plan with the paper's days, in the order of its rows, and the share of the chips'
    peak that these days come to if they were all spent training.

    Raises:
      AnalysisError: the plan has other chips or rows than the paper.
    """
    printed = reference("Table 1")
    printed = printed[printed["panel"] == "v4"]
    matches = [CHIPS_AND_DAYS.search(x) for x in printed["x"]]
    chips, days = zip(*((int(m[1]), int(m[2])) for m in matches if m), strict=True)
    if list(chips) != list(plan["chips"]):
        raise AnalysisError(
            f"the plan of Table 1 has chips {list(plan['chips'])}, the paper {list(chips)}; "
            "plan all five rows on their own slices"
        )
    plan = plan.assign(paper_days=list(days))
    if "peak_flops" in plan:
        work = plan["steps"].astype(float) * (plan["flops_towers"] + plan["flops_loss"])
        peak = plan["paper_days"] * 86_400.0 * plan["chips"] * plan["peak_flops"]
        plan = plan.assign(paper_mfu=(work / peak).round(4))
    return plan


def draw_plan(plan: pd.DataFrame, name: str, assumed: str = "") -> StudyFigure:
    """Peak memory per chip and chip-days of each cell by batch size.

    Marks differ by slice; lines join the cells of one budget, loss and kind of pairs.
    """
    plan = plan.assign(
        chip_days=plan["days"] * plan["chips"],
        budget=[style.format_count(n) for n in plan["steps"] * plan["batch_size"]],
    )
    slices = sorted(plan["slice"].unique(), key=lambda name: (len(name), name))
    losses = [loss for loss in LOSSES if (plan["loss"] == loss).any()]
    markers = dict(zip(slices, itertools.cycle("os^Dv"), strict=False))
    with style.page():
        legend = [STYLES[loss].handle(loss, marker="") for loss in losses]
        grey: dict[str, Any] = {"color": "#555555", "linestyle": ""}
        legend += [Line2D([], [], marker=markers[one], label=one, **grey) for one in slices]
        fig, (memory, days) = layout.make_figure(
            plan,
            title=f"{name}: memory and chip-days of each cell",
            caption=[_fit_words(plan), *([assumed] if assumed else [])],
            columns=layout.arrange(2, wide=2),
            heights=2.0,
            legend=legend,
        )
        for loss in losses:
            for one in slices:
                part = plan[(plan["loss"] == loss) & (plan["slice"] == one)]
                look = replace(STYLES[loss], marker=markers[one])
                # Side by side, so that neither loss hides the other.
                shift = 1.0 if len(losses) < 2 else 0.95 if loss == losses[0] else 1.05
                _draw_cells(memory, shift * part["batch_size"], part, "hbm_gib", look)
                _draw_cells(days, part["batch_size"], part, "chip_days", look)
        _join_budgets(days, plan, losses)
        _draw_capacity(memory, plan)
        style.plain_log(days)
        days.set_ylabel("chip-days")
        for axes in (memory, days):
            style.batch_axis(axes, sorted(plan["batch_size"].unique()))
    return fig


def _join_budgets(axes: Axes, plan: pd.DataFrame, losses: Sequence[str]) -> None:
    """A line through the cells of a budget, with the budget at its end."""
    several = plan["budget"].nunique() > 1
    for loss in losses:
        keys = ["budget", *(["pairs"] if "pairs" in plan else [])]
        for (budget, *_), part in plan[plan["loss"] == loss].groupby(keys, sort=False):
            line = part.groupby("batch_size")["chip_days"].median()
            more: dict[str, Any] = {"color": STYLES[loss].colour, "linestyle": STYLES[loss].line}
            axes.plot(line.index, line.to_numpy(), linewidth=0.7, **more)
            if several and loss == losses[0]:
                axes.annotate(
                    budget, (line.index[-1], line.iloc[-1]), fontsize=style.SMALL, va="center",
                    xytext=(6, 0), textcoords="offset points",
                )  # fmt: skip


def draw_days(plan: pd.DataFrame, assumed: str = "") -> StudyFigure:
    """Table 1: peak memory per chip, and our estimate of the days next to the paper's."""
    labels = [
        f"{row.slice}\nB = {style.format_size(row.batch_size)}"
        for row in plan.itertuples(index=False)
    ]
    words = [_fit_words(plan), "Paper: whole days as printed, evaluations and pauses included."]
    if "paper_mfu" in plan:
        low, high = plan["paper_mfu"].min(), plan["paper_mfu"].max()
        words.append(f"Its days come to {low:.0%} to {high:.0%} of the chips' bfloat16 peak.")
    ours = SeriesStyle(colour=style.BLACK, marker="o", line="")
    theirs = SeriesStyle(colour=style.WINE, marker="s", line="")
    hollow: dict[str, Any] = {"markerfacecolor": "white", "markersize": 6}
    with style.page():
        fig, (memory, days) = layout.make_figure(
            plan,
            title="Table 1: memory, and estimated days next to the paper's",
            caption=[*words, *([assumed] if assumed else [])],
            columns=layout.arrange(2, wide=2),
            heights=2.0,
            legend=[ours.handle("estimate"), theirs.handle("the paper", **hollow)],
        )
        places = plan.index.to_series()
        _draw_cells(memory, places, plan, "hbm_gib", ours)
        _draw_capacity(memory, plan)
        _draw_dots(days, places, plan["days"], ours)
        _draw_dots(days, places, plan["paper_days"], theirs, hollow=True, markersize=6)
        for axes in (memory, days):
            axes.set_xticks(places, labels, fontsize=style.SMALL)
            axes.set_xlim(-0.5, len(plan) - 0.5)
        days.set_ylabel("days")
        days.set_ylim(0, 1.15 * max(plan["days"].max(), plan["paper_days"].max()))
    return fig


def draw_speed(speed: pd.DataFrame) -> StudyFigure:
    """Predicted over measured examples per second of each cell that has a record."""
    chips = ", ".join(sorted({f"{row.chips} x {row.chip}" for row in speed.itertuples()}))
    predictions = {"assumed": speed["predicted_examples_per_s"]}
    if "calibrated_examples_per_s" in speed:
        predictions["calibrated"] = speed["calibrated_examples_per_s"]
    ratios = {by: p / speed["measured_examples_per_s"] for by, p in predictions.items()}
    words = {
        "assumed": "by the assumed share of the peak",
        "calibrated": "calibrated by the other cells",
    }
    medians = ", ".join(f"{ratio.median():.2g} ({by})" for by, ratio in ratios.items())
    losses = [loss for loss in LOSSES if (speed["loss"] == loss).any()]
    columns = layout.arrange(len(ratios), wide=2)
    with style.page():
        fig, every = layout.make_figure(
            speed,
            title="Speed: predicted over measured",
            caption=[f"Cells on {chips}. Medians: {medians}."],
            columns=columns,
            heights=2.0,
            legend=[STYLES[loss].handle(loss, linestyle="") for loss in losses],
        )
        for axes, (by, ratio) in zip(every, ratios.items(), strict=True):
            # Side by side, so that neither loss hides the other.
            shifts = (0.9, 1.1) if len(losses) == 2 else (1.0,)
            for loss, shift in zip(losses, shifts, strict=True):
                part = speed["loss"] == loss
                _draw_dots(
                    axes, shift * speed["batch_size"][part], ratio[part], STYLES[loss], alpha=0.5
                )
            axes.axhline(1, color="black", linewidth=0.8)
            style.plain_log(axes)
            style.batch_axis(axes, sorted(speed["batch_size"].unique()))
            axes.set_ylabel("predicted / measured")
            axes.set_title(words[by], loc="left")
        layout.share_y(every, columns)
        layout.hide_inner_labels(every, columns)
    return fig


def _fit_words(plan: pd.DataFrame) -> str:
    fits = _fit(plan) == "fits"
    return (
        f"{fits.sum()} of {len(plan)} cells fit, as compiled by XLA. Crosses: do not fit; hollow: "
        "memory by formula."
    )


def _fit(plan: pd.DataFrame) -> pd.Series[str]:
    return plan["fits"].map({True: "fits", False: "does not fit"}).fillna("unknown")


def _draw_cells(axes: Axes, x: Any, plan: pd.DataFrame, column: str, look: SeriesStyle) -> None:
    """A point for each cell: filled if it fits, a cross if it does not, hollow if unknown."""
    marks: dict[str, Any] = {"fits": {}, "does not fit": {"marker": "x"}}
    marks["unknown"] = {"hollow": True}
    for verdict, mark in marks.items():
        some = _fit(plan) == verdict
        _draw_dots(axes, x[some], plan[column][some], look, **mark)


def _draw_dots(
    axes: Axes, x: Any, y: Any, look: SeriesStyle, *, hollow: bool = False, **more: Any
) -> None:
    face = {"markerfacecolor": "none"} if hollow else {}
    dots = {"linestyle": "none", "color": look.colour, "marker": look.marker, "markersize": 3.5}
    axes.plot(x, y, **{**dots, **face, **more})


def _draw_capacity(axes: Axes, plan: pd.DataFrame) -> None:
    """The memory of each kind of chip, and the axis."""
    for gib in sorted(plan["usable_hbm_gib"].unique()):
        axes.axhline(gib, **GUIDE)
        axes.annotate(
            f"{gib:g} GiB per chip", (0.01, gib), xycoords=("axes fraction", "data"),
            fontsize=style.SMALL, color="#555555", va="bottom",
        )  # fmt: skip
    axes.set_ylabel("peak HBM (GiB)")
    axes.set_ylim(0, max(plan["usable_hbm_gib"].max() * 1.2, plan["hbm_gib"].max() * 1.05))
