"""Quality by examples per step and pairs per example, two axes that only sigmoid can part.

Cells: sigmoid with `loss.pairs.kind` = groups, by batch_size and group size, and the cells with
all pairs equal in the rest, whose group is the whole batch. The learning rate may follow the
batch size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from analysis import panels, style
from analysis.figures import points
from analysis.figures.inputs import Inputs
from analysis.figures.quality import between, label, missing_note
from analysis.panels import Panel
from analysis.varying import keys, most, same_fields, with_fields

GROUP, RATE = "loss.pairs.size", "optimizer.learning_rate"
AXES = ("batch_size", GROUP)


def data(inputs: Inputs) -> pd.DataFrame:
    """x is the batch size, series the pairs per example (each row's group size) as a number."""
    cells = with_fields(inputs.cells, [GROUP, RATE, "loss.pairs.kind"])
    sigmoid = cells[cells["loss.kind"] == "sigmoid"]
    grouped = sigmoid[sigmoid["loss.pairs.kind"] == "groups"]
    if grouped.empty:
        return points.frame([])
    chosen = _one_rate(most(grouped, keys(grouped, _fields(grouped)), AXES))
    whole = sigmoid[sigmoid["loss.pairs.kind"] == "all"]
    rest = [name for name in _fields(sigmoid) if not name.startswith("loss.pairs.")]
    rest = [name for name in rest if name in chosen]
    same = [*rest, RATE, "batch_size"]
    wanted = set(keys(chosen, same))
    whole = whole[[key in wanted for key in keys(whole, same)]]
    both = pd.concat([chosen, whole.assign(**{GROUP: whole["batch_size"]})])
    panel = Panel(cells=both, axes=AXES, points=())
    metric = inputs.quality
    done = panel.done.assign(series=panel.done[GROUP].astype(int), x=panel.done["batch_size"])
    rows = points.ours(done, "map", metric)
    missing = points.unmeasured(panel, metric)
    return points.frame(rows, panels=[panel], missing=missing, title=panels.title(panel))


def draw(df: pd.DataFrame) -> Figure:
    """Means as numbers and colours, iso-quality contours, dotted lines of equal pairs per step."""
    means = df[df["what"] == "mean"]
    x, y = means["series"].astype(float).to_numpy(), means["x"].astype(float).to_numpy()
    value = means["value"].to_numpy(float)
    with style.context():
        fig, (axes,) = style.figure(
            heights=[3.0],
            title="Examples per step against pairs per example",
            notes=_notes(df),
            footer=df.attrs.get("provenance", ""),
        )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        if contours := _triangles(np.log2(x), np.log2(y)):
            contours.x, contours.y = 2**contours.x, 2**contours.y
            drawn = axes.tricontour(contours, value, levels=6, colors="#777777", linewidths=0.8)
            axes.clabel(drawn, fontsize=style.SMALL, fmt="%.3g")
        shown = axes.scatter(x, y, c=value, cmap="cividis", s=60, zorder=3, edgecolors="white")
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
        axes.set_xlabel("pairs per example (group size g; g = B is the whole batch)")
        axes.set_ylabel("examples per step B")
        bar = fig.colorbar(shown, ax=axes, pad=0.02, aspect=30)
        bar.set_label(label(means["metric"].iloc[0]).replace("\n", " "), fontsize=style.SMALL)
    return fig


def _fields(cells: pd.DataFrame) -> list[str]:
    return same_fields(cells, AXES, ignoring=(RATE,))


def _one_rate(cells: pd.DataFrame) -> pd.DataFrame:
    """One learning rate for each batch size: the one with most groups."""
    parts = [most(same, keys(same, [RATE]), AXES) for _, same in cells.groupby("batch_size")]
    return pd.concat(parts)


def _triangles(x: np.ndarray, y: np.ndarray) -> Any:
    """Of the points, or None where they lie on a line."""
    if len(x) < 4 or np.linalg.matrix_rank(np.stack([x - x[0], y - y[0]])) < 2:
        return None
    return Triangulation(x, y)


def _equal_pairs(axes: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Lines along which a step costs as many pairs, B * g."""
    ends = np.array([x.min() / 1.8, x.max() * 1.8])
    for pairs in 2.0 ** np.arange(np.log2((x * y).min()), np.log2((x * y).max()) + 1, 2):
        axes.plot(ends, pairs / ends, color="#bbbbbb", linewidth=0.6, linestyle=":", zorder=1)


def _notes(df: pd.DataFrame) -> list[str]:
    seeds = df[df["what"] == "seed"].groupby(["series", "x"]).size()
    lines = [
        f"Numbers: means over {between(seeds)}. Full lines: equal quality, "
        "between the points along straight lines in logarithms. Dotted: equal pairs per step, each "
        "four times the one below. All cells see the same number of examples. A small group also "
        "changes the prior odds of a pair, and with them what b = -10 means."
    ]
    if df.attrs.get("title"):
        lines.append(f"{df.attrs['title']}.")
    return [*lines, *missing_note(df.attrs.get("missing", []))]
