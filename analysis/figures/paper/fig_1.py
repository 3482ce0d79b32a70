"""Fig. 1: the loss computed in chunks (paper Sec. 3.3), and what that saves, measured.

Above, a drawing: the paper's mock-up, 3 devices and a batch of 12. Below, measurements: temporary
memory and time of value and gradients, ours (texts travel round a ring of devices, one tile of
logits held at a time) against all logits at once. They are `measured/loss.json`, so the figure
needs no cell and is drawn with the paper's numbers only.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.style import STYLES

# What `study bench loss --json` printed, with the hardware and the command.
MEASURED = resources.files("analysis") / "measured" / "loss.json"
DEVICES, PAIRS = 3, 4  # of the mock-up: each device holds 4 images and 4 texts
OURS, NAIVE = "ours", "all at once"
SERIES = {
    ("sigmoid", OURS): STYLES["sigmoid"],
    ("sigmoid", NAIVE): STYLES["sigmoid, small batch"],
    ("softmax", OURS): STYLES["softmax"],
    ("softmax", NAIVE): STYLES["softmax, small batch"],
}
COLOURS = (style.WINE, style.TEAL, style.OLIVE)  # of the devices
COLUMNS = ("source", "panel", "series", "kind", "x", "value", "round")


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel "memory" (MiB) or "time" (all at once over ours), x the batch size; no row for cells.

    kind: "seed" is one round of the measurement, "mean" the median of the rounds.
    """
    rows: list[Row] = []
    if len(inputs.cells):
        return pd.DataFrame(rows, columns=list(COLUMNS))
    measured = json.loads(MEASURED.read_bytes())
    table = pd.DataFrame([row for row in measured["results"] if row.get("seconds")])
    for loss, name in SERIES:
        own = table[table["name"] == (loss if name == OURS else f"naive_{loss}")]
        for _, row in own.sort_values("batch_size").iterrows():
            common = {"source": "bench", "series": f"{loss}, {name}", "x": row["batch_size"]}
            memory = row["temp_bytes"] / 2**20
            rows.append(common | {"panel": "memory", "kind": "mean", "value": memory})
            if name == NAIVE:
                rows += [
                    common | {"panel": "time", "kind": "seed", "value": ratio, "round": number}
                    for number, ratio in enumerate(row["ratios"])
                ]
                median = float(pd.Series(row["ratios"]).median())
                rows.append(common | {"panel": "time", "kind": "mean", "value": median})
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"round": "Int64"})
    dim, cores = int(table["dim"].iloc[0]), int(table["cores"].iloc[0])
    frame.attrs.update(
        provenance=f"measurements {hashlib.sha256(MEASURED.read_bytes()).hexdigest()[:10]}",
        notes=[
            f"measured with embeddings of width {dim} on a ring of {cores} devices, "
            f"{measured['hardware']}",
            "memory: temporaries of the compiled program. Time: of all logits at once over ours, "
            "median and single rounds",
        ],
    )
    return frame


def draw(df: pd.DataFrame) -> StudyFigure:
    """The mock-up in one row, memory and time below."""
    words = (
        "Top, a drawing after the paper, not a measurement: 3 devices, a batch of 12; each device "
        "compares its 4 images with the texts that have reached it. Dots: positives. Light: blocks "
        "of earlier moves. Bars: quartiles of the rounds."
    )
    below = layout.arrange(2, wide=2)
    fig, axes = layout.make_figure(
        df,
        title="Fig. 1: the loss in chunks, and what it saves",
        caption=[words],
        columns=[DEVICES, *below],
        heights=[1.5 if len(below) > 1 else 1.9, *[1.7] * len(below)],
        stretch=True,
        legend=[look.handle(f"{loss}, {name}") for (loss, name), look in SERIES.items()],
    )
    for step, panel in enumerate(axes[:DEVICES]):
        _draw_mock_up(panel, step)
    memory, time = axes[DEVICES:]
    for (loss, name), look in SERIES.items():
        for quantity, one in (("memory", memory), ("time", time)):
            mine = df[(df["panel"] == quantity) & (df["series"] == f"{loss}, {name}")]
            style.line(one, style.means(mine), look, marker=look.marker)
            rounds = mine[mine["kind"] == "seed"].groupby("x")["value"]
            ends = {"low": rounds.quantile(0.25), "high": rounds.quantile(0.75)}
            style.bars(one, style.means(mine).set_index("x").assign(**ends).reset_index(), look)
    style.plain_log(memory)
    memory.set_ylabel("temporary\nmemory (MiB)")
    time.axhline(1, color="black", linewidth=0.8)
    time.set_ylabel("time, all at once\nover ours")
    time.set_ylim(bottom=0)
    for one in (memory, time):
        style.batch_axis(one, sorted(df["x"].unique()))
        one.set_title(f"{'memory' if one is memory else 'time'}, measured", loc="left")
    return fig


def _draw_mock_up(axes: Axes, step: int) -> None:
    """The 12 x 12 pairs after `step` moves of the texts, coloured by the device that holds them."""
    total = DEVICES * PAIRS
    for device in range(DEVICES):
        for move in range(step + 1):
            left = (device + move) % DEVICES * PAIRS
            block: dict[str, Any] = {"facecolor": COLOURS[device], "edgecolor": "white"}
            block |= {"alpha": 1.0 if move == step else 0.3, "linewidth": 0.8}
            axes.add_patch(Rectangle((left, device * PAIRS), PAIRS, PAIRS, **block))
    on = [i + 0.5 for i in range(total)]
    axes.plot(on, on, linestyle="", marker="o", markersize=1.8, color="white", zorder=3)
    axes.add_patch(Rectangle((0, 0), total, total, fill=False, edgecolor="#555555", linewidth=0.6))
    axes.set_xlim(-0.3, total + 0.3)
    axes.set_ylim(total + 0.3, -0.3)
    axes.set_aspect("equal")
    axes.grid(False)
    middles = [PAIRS * (d + 0.5) for d in range(DEVICES)]
    labels = [str(d + 1) for d in range(DEVICES)]
    axes.set_xticks(middles, labels)
    axes.set_yticks(middles, labels) if step == 0 else axes.set_yticks([])
    axes.tick_params(length=0, pad=1.5)
    axes.set_xlabel("texts of device")
    axes.set_ylabel("images of device" if step == 0 else "")
    done = ("no move: 33 %", "1 move: 66 %", "2 moves: 100 %")[step]
    axes.set_title(done, fontsize=style.BODY - 0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)


fig_1 = Plot("fig_1", data, draw)
