"""Plans as CSV and figures: memory and days of every cell, and predicted against measured speed.

A plan is a table with one row per cell, as `study plan --json` prints them. The chips and days of
the paper are in its reference table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.errors import AnalysisError
from analysis.figures.plot import layout, style
from analysis.figures.plot.style import LOSSES, STYLES, SeriesStyle
from analysis.paper.reference import reference

CHIPS_AND_DAYS = re.compile(r"TPUv4 chips=(\d+);days=(\d+)")
GUIDE: Any = {"color": style.GREY, "linewidth": 0.8, "linestyle": (0, (4, 2))}


def write_plan(
    rows: Sequence[Mapping[str, Any]], out: str | Path, name: str, *, assumed: str = ""
) -> list[Path]:
    """Writes `<out>/<name>.csv`, `.png` and `.pdf`; of a plan with one batch size the CSV alone.

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
    """Writes `<out>/<name>-measured.csv`, `.png` and `.pdf`: predicted and measured examples/s.

    Args:
      rows: id, chip, chips, batch_size, loss, predicted_examples_per_s, measured_examples_per_s,
        and, where other cells on that chip were measured, calibrated_examples_per_s by them.
    """
    speed = pd.DataFrame([dict(row) for row in rows])
    return _write(speed, out, f"{name}-measured", draw_speed(speed))


def _write(table: pd.DataFrame, out: str | Path, name: str, fig: Figure | None) -> list[Path]:
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


@style.styled
def draw_plan(plan: pd.DataFrame, name: str, assumed: str = "") -> Figure:
    """Peak memory per chip and days of each cell by batch size."""
    machines = ", ".join(sorted(plan["slice"].unique(), key=lambda s: (len(s), s)))
    examples = sorted(plan["steps"] * plan["batch_size"])
    budgets = list(dict.fromkeys(style.format_count(n) for n in examples))
    words = [f"Machines: {machines}. {_fit_words(plan)}"]
    if 1 < len(budgets) <= 6:
        words.append(f"Budgets: {', '.join(budgets)} examples.")
    fig, (memory, days) = layout.make_figure(
        heights=(1.5, 1.7),
        title=f"{name}: memory and days of each cell",
        caption=[*words, *([assumed] if assumed else [])],
        footer=f"{len(plan)} cells",
    )
    sizes, losses = sorted(plan["batch_size"].unique()), sorted(set(plan["loss"]))
    # Side by side, so that neither loss hides the other.
    for loss, shift in zip(losses, (0.94, 1.06) if len(losses) == 2 else (1.0,), strict=True):
        part = plan[plan["loss"] == loss]
        for axes, column in ((memory, "hbm_gib"), (days, "days")):
            _draw_cells(axes, shift * part["batch_size"], part, column, STYLES[loss])
    _draw_capacity(memory, plan)
    days.set_ylabel("days")
    style.plain_log(days)
    for axes in (memory, days):
        style.batch_axis(axes, sizes)
    memory.set_xlabel("")
    layout.legend_above(memory, [STYLES[loss].handle(loss, linestyle="") for loss in losses])
    return fig


@style.styled
def draw_days(plan: pd.DataFrame, assumed: str = "") -> Figure:
    """Table 1: peak memory per chip, and our estimate of the days next to the paper's."""
    labels = [
        f"{row.slice}\nB={style.format_size(row.batch_size)}"
        for row in plan.itertuples(index=False)
    ]
    words = [_fit_words(plan), "Paper: whole days as printed, evaluations and pauses included."]
    if "paper_mfu" in plan:
        low, high = plan["paper_mfu"].min(), plan["paper_mfu"].max()
        words.append(f"Its days come to {low:.0%} to {high:.0%} of the chips' bfloat16 peak.")
    fig, (memory, days) = layout.make_figure(
        heights=(1.3, 1.7),
        title="Table 1: memory, and estimated days next to the paper's",
        caption=[*words, *([assumed] if assumed else [])],
        footer=f"{len(plan)} cells",
    )
    ours, theirs = STYLES["sigmoid"], STYLES["softmax"]
    places = plan.index.to_series()
    _draw_cells(memory, places, plan, "hbm_gib", ours)
    _draw_capacity(memory, plan)
    _draw_dots(days, places, plan["days"], ours, label="estimate")
    _draw_dots(days, places, plan["paper_days"], theirs, hollow=True, markersize=6, label="paper")
    for axes in (memory, days):
        axes.set_xticks(places, labels, fontsize=style.SMALL)
        axes.set_xlim(-0.5, len(plan) - 0.5)
    days.set_ylabel("days")
    days.set_ylim(0, 1.15 * max(plan["days"].max(), plan["paper_days"].max()))
    layout.legend_above(days)
    return fig


@style.styled
def draw_speed(speed: pd.DataFrame) -> Figure:
    """Predicted over measured examples per second of each cell that has a record."""
    chips = ", ".join(sorted({f"{row.chips} x {row.chip}" for row in speed.itertuples()}))
    measured = speed["measured_examples_per_s"]
    predictions = {"assumed": speed["predicted_examples_per_s"]}
    if "calibrated_examples_per_s" in speed:
        predictions["calibrated"] = speed["calibrated_examples_per_s"]
    medians = ", ".join(f"{(p / measured).median():.2g} ({by})" for by, p in predictions.items())
    fig, (axes,) = layout.make_figure(
        heights=(2.2,),
        title="Speed: predicted against measured",
        caption=[
            f"On {chips}. Hollow: by the assumed share of the peak; filled: by the median share "
            f"that the other cells reached. Median of predicted over measured: {medians}."
        ],
        footer=f"{len(speed)} cells",
    )
    losses = [loss for loss in LOSSES if (speed["loss"] == loss).any()]
    for loss in losses:
        part = speed["loss"] == loss
        for by, predicted in predictions.items():
            hollow = by == "assumed"
            _draw_dots(axes, measured[part], predicted[part], STYLES[loss], hollow=hollow)
    low = min(measured.min(), *(p.min() for p in predictions.values())) * 0.8
    high = max(measured.max(), *(p.max() for p in predictions.values())) * 1.25
    axes.plot([low, high], [low, high], **GUIDE)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("measured examples/s")
    axes.set_ylabel("predicted examples/s")
    layout.legend_above(axes, [STYLES[loss].handle(loss, linestyle="") for loss in losses])
    return fig


def _fit_words(plan: pd.DataFrame) -> str:
    fits = _fit(plan) == "fits"
    return (
        f"{fits.sum()} of {len(plan)} cells fit, as compiled by XLA. Crosses: do not fit; hollow: "
        "memory by formula, not compiled."
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
