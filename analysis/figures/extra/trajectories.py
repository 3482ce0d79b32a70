"""Temperature, bias, logits and norms along the runs, by batch size.

Cells: the sigmoid cells of Fig. 2, by their fields (see `panels.batch_sizes`): SigLiT where there
are any, else from scratch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.batch_size import TOWERS
from analysis.figures.plot import layout, points, style
from analysis.select import panels

QUANTITIES = {
    "train/t": "temperature t",
    "train/b": "bias b",
    "train/pos_logit_mean": "mean logit,\npositives",
    "train/neg_logit_mean": "mean logit,\nnegatives",
    "train/grad_norm": "gradient\nnorm",
    "train/update_norm": "update\nnorm",
    "train/param_norm": "parameter\nnorm",
}
LOGARITHMIC = ("train/t", "train/grad_norm", "train/update_norm")
LEGEND_COLUMNS = 5


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is the quantity, series the batch size, x the examples seen; see `points.curves`."""
    for image in TOWERS:
        panel = inputs.select(panels.batch_sizes, image=image)
        done = panel.done[panel.done["loss.kind"] == "sigmoid"]
        if len(done):
            done = done.assign(series=done["batch_size"])
            rows = [row for key in QUANTITIES for row in points.curves(inputs.rows, done, key, key)]
            return points.make_table(rows, panels=[panel], title=panels.title(panel))
    return points.make_table([])


@style.styled
def draw(df: pd.DataFrame) -> Figure:
    """One panel for each quantity; thin lines are seeds, the full line is their mean."""
    df = df.assign(series=df["series"].astype(int), id=df["id"].fillna(""))  # a mean has no cell
    names = [name for name in QUANTITIES if (df["panel"] == name).any()]
    styles = style.batch_size_styles(sorted(set(df["series"])))
    rows = -(-len(names) // 2)
    fig, (head, *every) = layout.make_figure(
        heights=[0.18 * -(-len(styles) // LEGEND_COLUMNS), *[1.15] * rows],
        columns=[1, *[2] * rows],
        title="Training dynamics at each batch size (sigmoid)",
        caption=layout.caption_of(df, *_words(df)),
        footer=df.attrs.get("provenance", ""),
    )
    labels = [f"{'' if i else 'B = '}{style.format_size(size)}" for i, size in enumerate(styles)]
    handles = [
        Line2D([], [], color=look.colour, label=label)
        for look, label in zip(styles.values(), labels, strict=True)
    ]
    layout.legend_row(head, handles, LEGEND_COLUMNS)
    for axes, name in zip(every, names, strict=False):
        part = df[df["panel"] == name]
        for (size, kind, _), run in part.groupby(["series", "kind", "id"]):
            thin: dict[str, Any] = {"linewidth": 0.5, "alpha": 0.4} if kind == "seed" else {}
            axes.plot(run["x"].astype(float), run["value"], color=styles[size].colour, **thin)
        axes.set_ylabel(QUANTITIES[name])
        if name in LOGARITHMIC:
            positive = part.loc[part["value"] > 0, "value"]
            # The first and last updates of a schedule are almost zero.
            low = max(positive.min(), positive.max() / 1e3)
            axes.set_ylim(low / 1.1, positive.max() * 1.1)
            style.plain_log(axes)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(lambda x, _: style.format_count(x))
    for axes in every[len(names) :]:
        axes.set_axis_off()
    for axes in every[max(0, len(names) - 2) : len(names)]:
        axes.set_xlabel("examples seen")
    return fig


def _words(df: pd.DataFrame) -> list[str]:
    seeds = points.count_seeds(df, ["series"])
    words = [
        f"{seeds} of each batch size: thin lines; full: their mean. Values are of the last step of "
        "each logged interval. The mean logit of negatives is over all of them."
    ]
    ends = df[(df["kind"] == "seed") & (df["panel"] == "train/b")]
    if len(ends):
        last = ends.sort_values("x").groupby(["series", "id"])["value"].last()
        means = last.groupby(level=0).mean()
        biases = ", ".join(f"{b:.1f} at {style.format_size(size)}" for size, b in means.items())
        prior = ", ".join(f"{-np.log(int(size) - 1):.1f}" for size in means.index)
        words.append(f"Bias at the end: {biases}; the log-odds of a pair are {prior}.")
    return words


trajectories = Plot("trajectories", data, draw)
