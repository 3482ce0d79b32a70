"""Predicted against measured memory, one point per cell.

Cells: all that ended with a measured peak. On CPU a peak is the growth of the whole process, so
only steps of 100 MiB or more are drawn. Predicted is what XLA's memory analysis says of the
compiled training step: by the cell's own record, and by the plans of `results/plan` where they hold
the same cell on the same machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.rate_by_batch import style_of
from analysis.figures.plot import style
from analysis.figures.plot.quality import missing_note
from analysis.plans import compiled
from analysis.records.frame import MEMORY
from analysis.select import panels

PEAK, MEASURED_BY, COMPILED = MEMORY
COLUMNS = ("id", "batch_size", "predicted_by", "predicted_bytes", "measured_by", "measured_bytes")
MARKERS = {"record": "o", "plan": "D"}
# Bytes per device; below, what else grows in a process hides the step. Records of older versions
# hold a peak for those too.
TELLS_FROM = 100 * 2**20
HOW = {
    "device": "filled: peak of the allocator on the fullest device",
    "process": "hollow: state, and growth of the resident memory of the process",
}


def data(inputs: Inputs) -> pd.DataFrame:
    """One row per cell and prediction: predicted_by is "record" or "plan", measured_by "device" or
    "process"; bytes per device. `attrs["why"]` says why there is no row, `attrs["small"]` how many
    cells are left out because their steps are too small for what was measured."""
    cells = inputs.cells
    empty = pd.DataFrame(columns=list(COLUMNS))
    if PEAK not in cells:
        empty.attrs["why"] = "no record holds memory"
        return empty
    ended = cells[cells["status"].isin(("done", "diverged"))]
    small = (ended[MEASURED_BY] == "process") & (panels.numeric(ended, COMPILED) < TELLS_FROM)
    ended = ended[~small]
    measured = ended[panels.numeric(ended, PEAK) > 0]
    by = {"record": panels.numeric(measured, COMPILED), "plan": compiled.of(measured)}
    rows = [
        pd.DataFrame(
            {
                "id": measured["id"],
                "batch_size": measured["batch_size"],
                "predicted_by": name,
                "predicted_bytes": predicted,
                "measured_by": measured[MEASURED_BY],
                "measured_bytes": measured[PEAK],
            }
        )[predicted > 0]
        for name, predicted in by.items()
    ]
    table = pd.concat(rows).astype({"batch_size": "int64", "measured_bytes": "float64"})
    table = table.sort_values(["batch_size", "id", "predicted_by"], ignore_index=True)
    drawn = measured[measured["id"].isin(table["id"])]
    unmeasured = [f"{name} (no measured peak)" for name in ended["id"].drop(measured.index)]
    unpredicted = [f"{name} (not predicted)" for name in measured["id"].drop(drawn.index)]
    table.attrs["missing"] = unmeasured + unpredicted
    table.attrs["small"] = int(small.sum())
    if not table.empty:
        table.attrs["provenance"] = style.provenance(drawn)
    elif small.any():
        table.attrs["why"] = f"on CPU only steps from {_size(TELLS_FROM)} on tell their memory"
    else:
        table.attrs["why"] = "no record holds both a measured and a predicted peak of memory"
    return table


def draw(df: pd.DataFrame) -> Figure:
    """Measured over predicted on logarithmic axes, with the diagonal."""
    sizes = sorted({int(size) for size in df["batch_size"]})
    with style.context():
        fig, (head, axes) = style.figure(
            heights=[0.18 * (-(-len(sizes) // 4) + 1), 2.9],
            title="Memory of a device: predicted against measured",
            notes=_notes(df),
            footer=df.attrs.get("provenance", ""),
        )
        looks = dict(zip(sizes, style_of(sizes), strict=True))
        for (size, predicted, measured), mine in df.groupby(
            ["batch_size", "predicted_by", "measured_by"]
        ):
            colour = looks[int(size)].colour
            axes.plot(
                mine["predicted_bytes"].astype(float),
                mine["measured_bytes"].astype(float),
                linestyle="",
                marker=MARKERS[predicted],
                markersize=4.5,
                markeredgecolor=colour,
                markerfacecolor=colour if measured == "device" else "none",
                markeredgewidth=0.9,
            )
        _scales(axes, df[["predicted_bytes", "measured_bytes"]].to_numpy(float))
        style.key(head, _handles(df, looks), 4)
        axes.set_xlabel("predicted: the compiled step")
        axes.set_ylabel("measured: the peak of the run")
    return fig


def _scales(axes: Axes, bytes_: np.ndarray) -> None:
    """The same range both ways, with the diagonal."""
    ends = np.array([bytes_.min() / 1.5, bytes_.max() * 1.5])
    axes.plot(ends, ends, color="#777777", linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    for axis in ("x", "y"):
        getattr(axes, f"set_{axis}scale")("log", base=2)
        getattr(axes, f"set_{axis}lim")(ends)
        ticks = _ticks(*ends)
        getattr(axes, f"set_{axis}ticks")(ticks, [_size(tick) for tick in ticks])


def _ticks(low: float, high: float) -> list[float]:
    """Powers of two, six at most."""
    first, last = int(np.ceil(np.log2(low))), int(np.floor(np.log2(high)))
    return [2.0**power for power in range(first, last + 1, -(-(last + 1 - first) // 6))]


def _size(number: float) -> str:
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if number >= 2**power:
            return f"{number / 2**power:g} {unit}"
    return f"{number:g} B"


def _handles(df: pd.DataFrame, looks: dict[int, style.SeriesStyle]) -> list[Line2D]:
    dot: dict[str, Any] = {"linestyle": "", "markersize": 4.5, "color": "#333333"}
    handles = [
        Line2D([], [], **dot | {"color": look.colour}, marker="o", label=f"B = {style.short(size)}")
        for size, look in looks.items()
    ]
    by = [name for name in MARKERS if (df["predicted_by"] == name).any()]
    if len(by) > 1:
        handles += [Line2D([], [], **dot, marker=MARKERS[name], label=f"by {name}") for name in by]
    return handles


def _notes(df: pd.DataFrame) -> list[str]:
    ratios = (df["measured_bytes"] / df["predicted_bytes"]).groupby(df["measured_by"]).median()
    medians = ", ".join(f"{ratio:.3g} ({by})" for by, ratio in ratios.items())
    how = "; ".join(text for name, text in HOW.items() if name in ratios)
    lines = [
        "Predicted: arguments, outputs and temporaries of the compiled training step, less what "
        "they share, by XLA's memory analysis; per device.",
        f"Measured, {how}.",
        f"Median of measured over predicted: {medians}. Dashed: as predicted.",
    ]
    if small := df.attrs.get("small"):
        lines.append(
            f"Left out: {small} cell{'s' * (small > 1)} with steps below {_size(TELLS_FROM)} on "
            "CPU, where all else in the process grows by as much."
        )
    return [*lines, *missing_note(df.attrs.get("missing", []))]


memory = Plot("memory", data, draw)
