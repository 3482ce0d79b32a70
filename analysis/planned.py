"""Plans as CSV and figures: memory and days of every cell, and predicted against measured speed.

A plan is what `study plan --json` says of each cell, one row each. What the paper says of its own
chips and days is read from its reference table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import style
from analysis.errors import AnalysisError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_CHIPS = re.compile(r"TPUv4 chips=(\d+);days=(\d+)")


def write(
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
        frame = beside_the_paper(frame)
    csv = _csv(frame, Path(out), name)
    with style.context():
        fig = draw_days(frame, assumed) if name == "table-1" else draw(frame, name, assumed)
    return [csv, *style.save(fig, csv.with_suffix(""))]


def write_measured(rows: Sequence[Mapping[str, Any]], out: str | Path, name: str) -> list[Path]:
    """`<out>/<name>-measured.csv`, `.png` and `.pdf`: predicted against measured examples/s.

    Args:
      rows: id, chip, chips, batch_size, loss, predicted_examples_per_s, measured_examples_per_s.
    """
    import pandas as pd

    frame = pd.DataFrame([dict(row) for row in rows])
    csv = _csv(frame, Path(out), f"{name}-measured")
    with style.context():
        fig = draw_measured(frame)
    return [csv, *style.save(fig, csv.with_suffix(""))]


def _csv(frame: pd.DataFrame, out: Path, name: str) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.csv"
    frame.to_csv(path, index=False, lineterminator="\n")
    return path


def beside_the_paper(frame: pd.DataFrame) -> pd.DataFrame:
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
        work = frame["steps"] * (frame["flops_towers"] + frame["flops_loss"])
        there = frame["paper_days"] * 86_400.0 * frame["chips"] * frame["peak_flops"]
        frame = frame.assign(paper_mfu=(work / there).round(4))
    return frame


def draw(frame: pd.DataFrame, name: str, assumed: str = "") -> Figure:
    """Peak memory per chip and days of each cell over its batch size."""
    fits = frame["fits"].map({True: "fits", False: "does not fit"}).fillna("by formula")
    there = frame["hbm_there_gib"].max()
    machines = ", ".join(sorted(frame["slice"].unique(), key=lambda s: (len(s), s)))
    notes = [
        f"Machines: {machines}. {(fits == 'fits').sum()} of {len(frame)} cells fit by the "
        "compiler's word; crosses do not, hollow ones are by formula.",
        assumed,
    ]
    fig, (memory, days) = style.figure(
        heights=(1.5, 1.7),
        title=f"{name}: what each cell takes",
        notes=[note for note in notes if note],
        footer=f"{len(frame)} cells",
    )
    handles = []
    for loss in ("sigmoid", "softmax"):
        part = frame[frame["loss"] == loss]
        if part.empty:
            continue
        look = style.LOOKS[loss]
        for axes, column in ((memory, "hbm_gib"), (days, "days")):
            for verdict, marker, face in (
                ("fits", look.marker, look.colour),
                ("by formula", look.marker, "none"),
                ("does not fit", "x", look.colour),
            ):
                some = part[fits[part.index] == verdict]
                # Side by side, so that neither loss hides the other.
                x = some["batch_size"] * (0.94 if loss == "sigmoid" else 1.06)
                axes.scatter(
                    x, some[column], s=12, marker=marker, facecolors=face, edgecolors=look.colour
                ) if marker != "x" else axes.scatter(
                    x, some[column], s=14, marker="x", c=look.colour
                )
        handles.append(memory.scatter([], [], s=12, marker=look.marker, c=look.colour, label=loss))
    memory.axhline(there, color="#777777", linewidth=0.8, linestyle=(0, (4, 2)))
    memory.annotate(
        f"{there:g} GiB there", (0.01, there), xycoords=("axes fraction", "data"),
        fontsize=style.SMALL, color="#555555", va="bottom",
    )  # fmt: skip
    memory.set_ylabel("peak HBM (GiB)")
    memory.set_ylim(0, max(there * 1.2, frame["hbm_gib"].max() * 1.05))
    days.set_ylabel("days")
    days.set_yscale("log")
    for axes in (memory, days):
        style.batch_axis(axes, sorted(frame["batch_size"].unique()))
    memory.set_xlabel("")
    style.legend(memory, handles)
    return fig


def draw_days(frame: pd.DataFrame, assumed: str = "") -> Figure:
    """Table 1: our estimate of the days beside the paper's."""
    labels = [
        f"{row.slice}\nB={style.short(int(row.batch_size))}"
        for row in frame.itertuples(index=False)
    ]
    notes = ["Paper: whole days as printed in Table 1, evaluations and pauses included."]
    if "paper_mfu" in frame:
        low, high = frame["paper_mfu"].min(), frame["paper_mfu"].max()
        notes.append(f"Its days come to {low:.0%} to {high:.0%} of the chips' bfloat16 peak.")
    fig, (axes,) = style.figure(
        heights=(1.8,),
        title="Table 1: estimated days beside the paper's",
        notes=[*notes, *([assumed] if assumed else [])],
        footer=f"{len(frame)} cells",
    )
    place = range(len(frame))
    ours, paper = style.LOOKS["sigmoid"], style.LOOKS["softmax"]
    axes.scatter(place, frame["days"], marker="o", s=22, c=ours.colour, label="estimate")
    axes.scatter(
        place, frame["paper_days"], marker="s", s=22, facecolors="none",
        edgecolors=paper.colour, label="paper",
    )  # fmt: skip
    axes.set_xticks(list(place), labels, fontsize=style.SMALL)
    axes.set_ylabel("days")
    axes.set_ylim(0, 1.15 * max(frame["days"].max(), frame["paper_days"].max()))
    style.legend(axes)
    return fig


def draw_measured(frame: pd.DataFrame) -> Figure:
    """Predicted over measured examples per second of each cell that has a record."""
    ratio = frame["predicted_examples_per_s"] / frame["measured_examples_per_s"]
    chips = ", ".join(sorted({f"{row.chips} x {row.chip}" for row in frame.itertuples()}))
    fig, (axes,) = style.figure(
        heights=(1.9,),
        title="Speed: predicted against measured",
        notes=[
            f"On {chips}. The prediction assumes a share of the peak; the median of predicted "
            f"over measured is {ratio.median():.2f}, and --calibrate replaces the assumption."
        ],
        footer=f"{len(frame)} cells",
    )
    handles = []
    for loss in ("sigmoid", "softmax"):
        part, look = frame[frame["loss"] == loss], style.LOOKS[loss]
        if not part.empty:
            handles.append(
                axes.scatter(
                    part["measured_examples_per_s"], part["predicted_examples_per_s"], s=14,
                    marker=look.marker, c=look.colour, label=loss,
                )
            )  # fmt: skip
    ends = [
        frame[["predicted_examples_per_s", "measured_examples_per_s"]].min().min() * 0.8,
        frame[["predicted_examples_per_s", "measured_examples_per_s"]].max().max() * 1.25,
    ]
    axes.plot(ends, ends, color="#777777", linewidth=0.8, linestyle=(0, (4, 2)))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("measured examples/s")
    axes.set_ylabel("predicted examples/s")
    style.legend(axes, handles)
    return fig
