"""What a run costs by batch size: throughput, use of the hardware, memory predicted and measured.

Cells: those of Fig. 2, by their fields (see `panels.batch_sizes`). Throughput is the median over
the logged lines of a cell; MFU and memory are drawn where records hold them.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import panels, style
from analysis.figures import marks, points
from analysis.figures.inputs import Inputs
from analysis.figures.quality import missing_note
from analysis.figures.saturation import IMAGES, LOSSES

# Of each panel: its axis, and the metrics that may fill it, the first that was recorded.
PARTS = {
    "throughput": ("examples per\nsecond", ("train/examples_per_s",)),
    "utilisation": ("MFU (%)", ("train/mfu", "train/mfu_percent")),
    "memory": ("peak memory\n(GiB per device)", ("execution/peak_memory_gib",)),
    "predicted memory": ("", ("execution/predicted_memory_gib",)),
}  # fmt: skip


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is one of `PARTS` and the image tower, series the loss, x the batch size."""
    rows: list[dict[str, Any]] = []
    used = []
    for image, name in IMAGES.items():
        panel = panels.batch_sizes(inputs.cells, image=image)
        if panel.done.empty:
            continue
        done = panel.done.assign(series=panel.done["loss.kind"], x=panel.done["batch_size"])
        before = len(rows)
        for part, (_, metrics) in PARTS.items():
            metric = next((key for key in metrics if key in done), None)
            if metric is not None:
                measured = _typical(done, inputs.rows, metric)
                rows += points.ours(measured, f"{part}, {name}", metric)
        if len(rows) > before:
            used.append(panel)
    title = "; ".join(panels.title(panel) for panel in used)
    return points.frame(rows, panels=used, title=title)


def draw(df: pd.DataFrame) -> Figure:
    """A panel for each quantity; the dotted line of memory is what the plan predicted."""
    shown = [name for name in dict.fromkeys(df["panel"]) if not name.startswith("predicted")]
    with style.context():
        fig, axes = style.figure(
            heights=[1.5] * len(shown),
            title="What a run costs by batch size",
            notes=_notes(df),
            footer=df.attrs.get("provenance", ""),
        )
        for one, name in zip(axes, shown, strict=True):
            _panel(one, df[df["panel"] == name])
            predicted = df[df["panel"] == f"predicted {name}"]
            for loss in LOSSES:
                look = style.LOOKS[loss]
                mine = marks.means(predicted[predicted["series"] == loss])
                marks.line(one, mine, "x", look, linestyle=":", marker="", linewidth=1.0)
            part, _, tower = name.partition(", ")
            one.set_title(tower, loc="right")
            one.set_ylabel(PARTS[part][0])
        style.legend(axes[0])
    return fig


def _typical(done: pd.DataFrame, rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """With the median over a run in place of its last value, which one pause may spoil."""
    if metric not in rows:
        return done
    medians = rows.groupby("id")[metric].median()
    return done.assign(**{metric: done["id"].map(medians)})


def _panel(axes: Axes, df: pd.DataFrame) -> None:
    for loss in LOSSES:
        mine, look = df[df["series"] == loss], style.LOOKS[loss]
        if mine.empty:
            continue
        marks.dots(axes, mine, "x", look, size=3.4)
        marks.line(axes, marks.means(mine), "x", look)
        axes.plot([], [], color=look.colour, linestyle=look.line, marker=look.marker, label=loss)
    axes.set_ylim(bottom=0)
    style.batch_axis(axes, sorted({int(x) for x in df["x"]}))


def _notes(df: pd.DataFrame) -> list[str]:
    parts = {name.partition(", ")[0] for name in df["panel"]}
    lines = [f"{df.attrs['title']}."] if df.attrs.get("title") else []
    lines.append(
        "Dots: the median over a cell's logged stretches, compilation and evaluation apart; line: "
        "mean over seeds. It is of the machine that the cells ran on, and of what else ran there."
    )
    lacking = [name for name in ("utilisation", "memory") if name not in parts]
    if lacking:
        lines.append(f"The records hold no {' and no '.join(lacking)} of a device.")
    return [*lines, *missing_note(df.attrs.get("missing", []))]
