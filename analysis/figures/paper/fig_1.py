"""Fig. 1: the loss computed in chunks (paper Sec. 3.3), and what that saves, measured.

Above, drawn and not measured: the paper's mock-up, 3 devices and a batch of 12. Below, measured:
temporary memory and time of value and gradients, ours (texts travel round a ring of devices, one
tile of logits held at a time) beside all logits at once, from `measured/loss.json`. It needs
no cell: `data` ignores the records, so it is drawn with the paper's numbers only.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import marks, style
from analysis.plans import bench

DEVICES, PAIRS = 3, 4  # of the mock-up: each device holds 4 images and 4 texts
OURS, NAIVE = "ours", "all at once"
STYLES = {
    ("sigmoid", OURS): style.STYLES["sigmoid"],
    ("sigmoid", NAIVE): style.STYLES["sigmoid, small batch"],
    ("softmax", OURS): style.STYLES["softmax"],
    ("softmax", NAIVE): style.STYLES["softmax, small batch"],
}
SHADES = ("#0b3c7d", "#6fb7e0", "#e08a00")
COLUMNS = ("source", "panel", "series", "what", "batch_size", "value", "round")


def data(inputs: Inputs) -> pd.DataFrame:
    """The measurements, long: panel "memory" (MiB) or "time" (naive over ours); no cell's."""
    rows: list[dict[str, Any]] = []
    if len(inputs.cells):
        return pd.DataFrame(rows, columns=list(COLUMNS))
    table = bench.loss()
    for (kind, name), _ in STYLES.items():
        own = table["name"] == (kind if name == OURS else f"naive_{kind}")
        for _, row in table[own].sort_values("batch_size").iterrows():
            common = {"source": "bench", "series": f"{kind}, {name}"}
            common |= {"batch_size": row["batch_size"]}
            memory = row["temp_bytes"] / 2**20
            rows.append(common | {"panel": "memory", "what": "mean", "value": memory})
            if name == NAIVE:
                rows += [
                    common | {"panel": "time", "what": "seed", "value": ratio, "round": number}
                    for number, ratio in enumerate(row["ratios"])
                ]
                median = float(pd.Series(row["ratios"]).median())
                rows.append(common | {"panel": "time", "what": "mean", "value": median})
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"round": "Int64"})
    dim, cores = int(table["dim"].iloc[0]), int(table["cores"].iloc[0])
    frame.attrs.update(
        provenance=table.attrs["provenance"],
        notes=[
            f"Measured, embeddings of width {dim} on a ring of {cores} devices, "
            f"{table.attrs['hardware']}.",
            "Memory: temporary, by the compiler's account. Time: of all logits at once over ours, "
            "median and single rounds.",
        ],
    )
    return frame


def draw(df: pd.DataFrame) -> Figure:
    """The mock-up in one row, memory and time below."""
    with style.context():
        fig, axes = style.figure(
            heights=[1.35, 0.34, 1.9, 1.4],
            columns=[DEVICES, 1, 1, 1],
            title="Fig. 1: the loss in chunks, and what it saves",
            notes=[
                "Top, a drawing and no measurement, after the paper: 3 devices, a batch of 12; "
                "each device meets its 4 images with the texts that have come to it. Dots: "
                "positives. Light: blocks done before.",
                *df.attrs.get("notes", ()),
            ],
            footer=df.attrs.get("provenance", ""),
        )
        for step, panel in enumerate(axes[:DEVICES]):
            _mock_up(panel, step)
        head, memory, time = axes[DEVICES:]
        for (kind, name), look in STYLES.items():
            series = f"{kind}, {name}"
            for part, axes_ in (("memory", memory), ("time", time)):
                mine = df[(df["panel"] == part) & (df["series"] == series)]
                marks.dots(axes_, mine, "batch_size", look, size=2.2)
                path = marks.means(mine)
                marks.line(axes_, path, "batch_size", look, marker=look.marker, label=series)
        style.key(head, memory.get_legend_handles_labels()[0], 2)
        sizes = sorted(df["batch_size"].unique())
        memory.set_yscale("log")
        memory.set_ylabel("temporary\nmemory (MiB)")
        time.axhline(1, color="black", linewidth=0.8)
        time.set_ylabel("time: all at once\n/ ours")
        time.set_ylim(bottom=0)
        for one in (memory, time):
            style.batch_axis(one, sizes)
        memory.set_xlabel("")
    return fig


def _mock_up(axes: Axes, step: int) -> None:
    """The 12 x 12 pairs after `step` moves of the texts, coloured by the device that met them."""
    total = DEVICES * PAIRS
    for device in range(DEVICES):
        for move in range(step + 1):
            left = (device + move) % DEVICES * PAIRS
            block = Rectangle(
                (left, device * PAIRS),
                *(PAIRS, PAIRS),
                facecolor=SHADES[device],
                alpha=1.0 if move == step else 0.3,
                edgecolor="white",
                linewidth=0.8,
            )
            axes.add_patch(block)
    on = [i + 0.5 for i in range(total)]
    axes.plot(on, on, linestyle="", marker="o", markersize=1.8, color="white", zorder=3)
    axes.add_patch(Rectangle((0, 0), total, total, fill=False, edgecolor="#555555", linewidth=0.6))
    axes.set_xlim(-0.3, total + 0.3)
    axes.set_ylim(total + 0.3, -0.3)
    axes.set_aspect("equal")
    axes.grid(False)
    middles = [PAIRS * (d + 0.5) for d in range(DEVICES)]
    axes.set_xticks(middles, [str(d + 1) for d in range(DEVICES)])
    axes.set_yticks(middles, [str(d + 1) for d in range(DEVICES)] if step == 0 else [])
    axes.tick_params(length=0, pad=1.5)
    axes.set_xlabel("texts of device")
    axes.set_ylabel("images of device" if step == 0 else "")
    done = ("no move: 33 %", "1 move: 66 %", "2 moves: 100 %")[step]
    axes.set_title(done, fontsize=style.BODY - 0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)


fig_1 = Plot("fig_1", data, draw)
