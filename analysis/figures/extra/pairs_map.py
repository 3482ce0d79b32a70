"""Quality by examples per step and pairs per example, two axes that only sigmoid can part.

Which cells: see `analysis.select.groups`. One panel for each bias that they start from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import points, style
from analysis.figures.plot.quality import between, label, missing_note
from analysis.select import pairs_map as maps
from analysis.select import panels


def data(inputs: Inputs) -> pd.DataFrame:
    """x is the batch size, series the pairs per example (each row's group size) as a number.

    The panel is the bias that its cells start from.
    """
    found = inputs.chosen(maps.by_start)
    rows, missing = [], []
    for start, panel in found.items():
        done = panel.done.assign(series=panel.done[maps.GROUP], x=panel.done["batch_size"])
        rows += points.ours(done, _name(start), inputs.quality)
        missing += points.unmeasured(panel, inputs.quality)
    title = panels.title(next(iter(found.values()))) if found else ""
    return points.frame(rows, panels=list(found.values()), missing=missing, title=title)


def draw(df: pd.DataFrame) -> Figure:
    """Means as numbers and colours, iso-quality contours, dotted lines of equal pairs per step."""
    means = df[df["what"] == "mean"]
    colours = Normalize(means["value"].min(), means["value"].max())
    names = list(dict.fromkeys(means["panel"]))
    with style.context():
        fig, every = style.figure(
            heights=[2.6] * len(names),
            title="Examples per step against pairs per example",
            notes=_notes(df),
            footer=df.attrs.get("provenance", ""),
        )
        for axes, name in zip(every, names, strict=True):
            shown = _map(axes, means[means["panel"] == name], colours)
            axes.set_title(name, fontsize=style.SMALL)
        every[-1].set_xlabel("pairs per example (group size g; g = B is the whole batch)")
        bar = fig.colorbar(shown, ax=every, pad=0.02, aspect=30 * len(names))
        bar.set_label(label(means["metric"].iloc[0]).replace("\n", " "), fontsize=style.SMALL)
    return fig


def _map(axes: Any, means: pd.DataFrame, colours: Normalize) -> Any:
    """One panel; returns what the colour bar is of."""
    x, y = means["series"].astype(float).to_numpy(), means["x"].astype(float).to_numpy()
    value = means["value"].to_numpy(float)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    if contours := _triangles(np.log2(x), np.log2(y)):
        contours.x, contours.y = 2**contours.x, 2**contours.y
        drawn = axes.tricontour(contours, value, levels=6, colors="#777777", linewidths=0.8)
        clear = _clear_of(drawn.allsegs, np.column_stack([x, y]))
        axes.clabel(drawn, fontsize=style.SMALL, fmt="%.3g", manual=clear)
    shown = axes.scatter(
        x, y, c=value, cmap="cividis", norm=colours, s=60, zorder=3, edgecolors="white"
    )
    for at_x, at_y, quality in zip(x, y, value, strict=True):
        axes.annotate(f"{quality:.1f}", (at_x, at_y), fontsize=style.SMALL, zorder=4,
                      xytext=(0, 6), textcoords="offset points", ha="center",
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})  # fmt: skip
    _equal_pairs(axes, x, y)
    for axis, levels in ((axes.xaxis, x), (axes.yaxis, y)):
        ticks = sorted(set(levels))
        axis.set_ticks(ticks, [style.short(int(tick)) for tick in ticks])
    axes.set_xlim(x.min() / 1.8, x.max() * 1.8)
    axes.set_ylim(y.min() / 1.8, y.max() * 2.0)
    axes.set_ylabel("examples per step B")
    return shown


def _name(start: Any) -> str:
    if isinstance(start, str):
        return "b starts at the log odds of a pair in its group"
    return "b starts at its default" if start is None else f"b starts at {start:g}"


def _triangles(x: np.ndarray, y: np.ndarray) -> Any:
    """Of the points, or None where they lie on a line."""
    if len(x) < 4 or np.linalg.matrix_rank(np.stack([x - x[0], y - y[0]])) < 2:
        return None
    return Triangulation(x, y)


def _clear_of(lines_L: list[list[np.ndarray]], points_Nx2: np.ndarray) -> list[np.ndarray]:
    """Of each level's lines, the place that is furthest from every point; near one there is none.

    Distances are in doublings.
    """
    found = []
    for lines in lines_L:
        parts = [np.log2(line) for line in lines if len(line) > 1]
        if not parts:
            continue
        share_S = np.linspace(0, 1, 9)[:, None, None]
        places = [line[:-1] * (1 - share_S) + line[1:] * share_S for line in parts]
        place_Px2 = np.concatenate([place.reshape(-1, 2) for place in places])
        far_P = np.linalg.norm(place_Px2[:, None] - np.log2(points_Nx2), axis=-1).min(1)
        if far_P.max() > 0.5:
            found.append(2 ** place_Px2[far_P.argmax()])
    return found


def _equal_pairs(axes: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Lines along which a step costs as many pairs, B * g."""
    ends = np.array([x.min() / 1.8, x.max() * 1.8])
    for pairs in 2.0 ** np.arange(np.log2((x * y).min()), np.log2((x * y).max()) + 1, 2):
        axes.plot(ends, pairs / ends, color="#bbbbbb", linewidth=0.6, linestyle=":", zorder=1)


def _notes(df: pd.DataFrame) -> list[str]:
    seeds = df[df["what"] == "seed"].groupby(["panel", "series", "x"]).size()
    lines = [
        f"Numbers: means over {between(seeds)}. Full lines: equal quality, "
        "between the points along straight lines in logarithms. Dotted: equal pairs per step, each "
        "four times the one below. All cells see the same number of examples. A small group also "
        "changes the prior odds of a pair, and with them what b = -10 means."
    ]
    if df.attrs.get("title"):
        lines.append(f"{df.attrs['title']}.")
    return [*lines, *missing_note(df.attrs.get("missing", []))]


pairs_map = Plot("pairs_map", data, draw)
