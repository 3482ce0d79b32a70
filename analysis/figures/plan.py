"""Plans as CSV and figures: memory and days of every cell, and predicted against measured speed.

A plan is what `study plan --json` says of each cell, one row each. What the paper says of its own
chips and days is read from its reference table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import AnalysisError
from analysis.figures.plot import marks, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CHIPS = re.compile(r"TPUv4 chips=(\d+);days=(\d+)")
_KEPT = re.compile(r"([a-z]+)([0-9.]+)")
_LINE: Any = {"color": "#777777", "linewidth": 0.8, "linestyle": (0, (4, 2))}


def write_plan(
    rows: Sequence[Mapping[str, Any]],
    out: str | Path,
    name: str,
    *,
    assumed: str = "",
) -> list[Path]:
    """`<out>/<name>.csv`, `.png` and `.pdf` of a plan.

    Args:
      assumed: what the times rest on, for the figure's notes.
    """
    import pandas as pd

    frame = pd.DataFrame([dict(row) for row in rows])
    if name == "table-1":
        frame = with_paper_days(frame)
    csv = _csv(frame, Path(out), name)
    with style.context():
        fig = draw_days(frame, assumed) if name == "table-1" else _draw(frame, name, assumed)
    return [csv, *style.save(fig, csv.with_suffix(""))]


def write_speed(rows: Sequence[Mapping[str, Any]], out: str | Path, name: str) -> list[Path]:
    """`<out>/<name>-measured.csv`, `.png` and `.pdf`: predicted against measured examples/s.

    Args:
      rows: id, chip, chips, batch_size, loss, predicted_examples_per_s, measured_examples_per_s,
        and, where other cells on that chip were measured, calibrated_examples_per_s by them.
    """
    import pandas as pd

    frame = pd.DataFrame([dict(row) for row in rows])
    csv = _csv(frame, Path(out), f"{name}-measured")
    with style.context():
        fig = draw_speed(frame)
    return [csv, *style.save(fig, csv.with_suffix(""))]


def _csv(frame: pd.DataFrame, out: Path, name: str) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.csv"
    frame.to_csv(path, index=False, lineterminator="\n")
    return path


def with_paper_days(frame: pd.DataFrame) -> pd.DataFrame:
    """Table 1's plan with the paper's chips and days, in the order of its rows, and the share of
    the chips' peak that its days come to if they were all spent training.

    Raises:
      AnalysisError: the plan has other chips or rows than the paper.
    """
    from analysis.paper import reference

    table = reference()
    printed = table[(table["figure"] == "Table 1") & (table["panel"] == "v4")]
    found = [_CHIPS.search(str(x)) for x in printed["x"]]
    paper = [(int(m[1]), int(m[2])) for m in found if m]
    if [chips for chips, _ in paper] != list(frame["chips"]):
        raise AnalysisError(
            f"the plan of Table 1 has chips {list(frame['chips'])}, the paper "
            f"{[chips for chips, _ in paper]}; plan all five rows on their own slices"
        )
    frame = frame.assign(paper_days=[days for _, days in paper])
    if "peak_flops" in frame:
        work = frame["steps"].astype(float) * (frame["flops_towers"] + frame["flops_loss"])
        there = frame["paper_days"] * 86_400.0 * frame["chips"] * frame["peak_flops"]
        frame = frame.assign(paper_mfu=(work / there).round(4))
    return frame


def draw_plan(frame: pd.DataFrame, name: str, assumed: str = "") -> Figure:
    """Peak memory per chip and days of each cell over its batch size, or, where all have one batch
    size, over the pairs that they keep."""
    with style.context():
        return _draw(frame, name, assumed)


def _draw(frame: pd.DataFrame, name: str, assumed: str) -> Figure:
    machines = ", ".join(sorted(frame["slice"].unique(), key=lambda s: (len(s), s)))
    examples = sorted(frame["steps"] * frame["batch_size"])
    budgets = list(dict.fromkeys(style.count(n) for n in examples))
    shown = 1 < len(budgets) <= 6
    fig, (memory, days) = style.figure(
        heights=(1.5, 1.7),
        title=f"{name}: what each cell takes",
        notes=[
            f"Machines: {machines}. {_judged(frame)}",
            *([f"Budgets: {', '.join(budgets)} examples."] if shown else []),
            *([assumed] if assumed else []),
        ],
        footer=f"{len(frame)} cells",
    )
    sizes = sorted(frame["batch_size"].unique())
    kept = list(dict.fromkeys(frame["pairs"])) if len(sizes) == 1 else []
    at = frame["batch_size"].astype(float)
    if len(kept) > 1:
        at = frame["pairs"].map(kept.index).astype(float)
    handles = []
    there = [loss for loss in ("sigmoid", "softmax") if (frame["loss"] == loss).any()]
    # Side by side, so that neither hides the other.
    for loss, aside in zip(there, (0.94, 1.06) if len(there) == 2 else (1.0,), strict=True):
        part = frame[frame["loss"] == loss]
        for axes, column in ((memory, "hbm_gib"), (days, "days")):
            _points(axes, aside * at[part.index], part, column, style.STYLES[loss])
        handles += _dots(memory, [], [], style.STYLES[loss], label=loss)
    _there(memory, frame)
    days.set_ylabel("days")
    marks.plain_log(days)
    for axes in (memory, days):
        if len(kept) > 1:
            axes.set_xticks(range(len(kept)), [_kept(one) for one in kept], rotation=90)
        else:
            style.batch_axis(axes, sizes)
    if len(kept) > 1:
        days.set_xlabel(f"negatives for each positive, B = {style.short(int(sizes[0]))}")
        memory.tick_params(labelbottom=False)
    memory.set_xlabel("")
    style.legend(memory, handles)
    return fig


def _kept(pairs: str) -> str:
    """ "hard1638.3" as "hard 1,638"."""
    found = _KEPT.fullmatch(pairs)
    return f"{found[1]} {float(found[2]):,.4g}" if found else pairs


def draw_days(frame: pd.DataFrame, assumed: str = "") -> Figure:
    """Table 1: peak memory per chip, and our estimate of the days beside the paper's."""
    labels = [
        f"{row.slice}\nB={style.short(int(row.batch_size))}"
        for row in frame.itertuples(index=False)
    ]
    notes = [_judged(frame), "Paper: whole days as printed, evaluations and pauses included."]
    if "paper_mfu" in frame:
        low, high = frame["paper_mfu"].min(), frame["paper_mfu"].max()
        notes.append(f"Its days come to {low:.0%} to {high:.0%} of the chips' bfloat16 peak.")
    fig, (memory, days) = style.figure(
        heights=(1.3, 1.7),
        title="Table 1: memory, and estimated days beside the paper's",
        notes=[*notes, *([assumed] if assumed else [])],
        footer=f"{len(frame)} cells",
    )
    ours, paper = style.STYLES["sigmoid"], style.STYLES["softmax"]
    place = frame.index.to_series()
    _points(memory, place, frame, "hbm_gib", ours)
    _there(memory, frame)
    _dots(days, place, frame["days"], ours, label="estimate")
    _dots(days, place, frame["paper_days"], paper, hollow=True, markersize=6, label="paper")
    for axes in (memory, days):
        axes.set_xticks(place, labels, fontsize=style.SMALL)
        axes.set_xlim(-0.5, len(frame) - 0.5)
    days.set_ylabel("days")
    days.set_ylim(0, 1.15 * max(frame["days"].max(), frame["paper_days"].max()))
    style.legend(days)
    return fig


def draw_speed(frame: pd.DataFrame) -> Figure:
    """Predicted over measured examples per second of each cell that has a record."""
    chips = ", ".join(sorted({f"{row.chips} x {row.chip}" for row in frame.itertuples()}))
    measured = frame["measured_examples_per_s"]
    ways = {"assumed": frame["predicted_examples_per_s"]}
    if "calibrated_examples_per_s" in frame:
        ways["calibrated"] = frame["calibrated_examples_per_s"]
    told = ", ".join(f"{(of / measured).median():.2g} ({way})" for way, of in ways.items())
    fig, (axes,) = style.figure(
        heights=(2.2,),
        title="Speed: predicted against measured",
        notes=[
            f"On {chips}. Hollow: by the assumed share of the peak; filled: by the median share "
            f"that the other cells reached. Median of predicted over measured: {told}."
        ],
        footer=f"{len(frame)} cells",
    )
    handles = []
    for loss in ("sigmoid", "softmax"):
        part, look = frame["loss"] == loss, style.STYLES[loss]
        if part.any():
            for way, of in ways.items():
                _dots(axes, measured[part], of[part], look, hollow=way == "assumed")
            handles += _dots(axes, [], [], look, label=loss)
    least = min(measured.min(), *(of.min() for of in ways.values())) * 0.8
    most = max(measured.max(), *(of.max() for of in ways.values())) * 1.25
    axes.plot([least, most], [least, most], **_LINE)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("measured examples/s")
    axes.set_ylabel("predicted examples/s")
    style.legend(axes, handles)
    return fig


def _judged(frame: pd.DataFrame) -> str:
    fits = _verdicts(frame) == "fits"
    return (
        f"{fits.sum()} of {len(frame)} cells fit by the compiler's word; crosses do not, and of "
        "hollow ones it has said nothing."
    )


def _verdicts(frame: pd.DataFrame) -> pd.Series[str]:
    return frame["fits"].map({True: "fits", False: "does not fit"}).fillna("unknown")


def _points(axes: Axes, x: Any, frame: pd.DataFrame, column: str, look: style.SeriesStyle) -> None:
    """A point for each cell: filled if it fits, a cross if it does not, hollow if nobody knows."""
    looks: dict[str, Any] = {
        "fits": {},
        "does not fit": {"marker": "x"},
        "unknown": {"hollow": True},
    }
    for verdict, drawn in looks.items():
        some = _verdicts(frame) == verdict
        _dots(axes, x[some], frame[column][some], look, **drawn)


def _dots(
    axes: Axes, x: Any, y: Any, look: style.SeriesStyle, *, hollow: bool = False, **more: Any
) -> list[Any]:
    drawn: dict[str, Any] = {
        **{"linestyle": "none", "color": look.colour, "marker": look.marker, "markersize": 3.5},
        **({"markerfacecolor": "none"} if hollow else {}),
    }
    return axes.plot(x, y, **drawn | more)


def _there(axes: Axes, frame: pd.DataFrame) -> None:
    """The memory that there is of each kind of chip, and the axis."""
    for gib in sorted(frame["usable_hbm_gib"].unique()):
        axes.axhline(gib, **_LINE)
        axes.annotate(
            f"{gib:g} GiB there", (0.01, gib), xycoords=("axes fraction", "data"),
            fontsize=style.SMALL, color="#555555", va="bottom",
        )  # fmt: skip
    axes.set_ylabel("peak HBM (GiB)")
    axes.set_ylim(0, max(frame["usable_hbm_gib"].max() * 1.2, frame["hbm_gib"].max() * 1.05))
