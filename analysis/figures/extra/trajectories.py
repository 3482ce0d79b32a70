"""Temperature, bias, logits and norms along the runs, by batch size.

Cells: the sigmoid cells of Fig. 2, by their fields (see `panels.batch_sizes`): SigLiT where there
are any, else from scratch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from analysis.figures.base import Inputs, Plot
from analysis.figures.extra.batch_size import TOWERS
from analysis.figures.plot import layout, points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.select import panels

QUANTITIES = {
    "train/t": "temperature t",
    "train/b": "bias b",
    "train/pos_logit_mean": "mean logit, positives",
    "train/neg_logit_mean": "mean logit, negatives",
    "train/grad_norm": "gradient norm",
    "train/update_norm": "update norm",
}
LOGARITHMIC = ("train/t", "train/grad_norm", "train/update_norm")


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


def draw(df: pd.DataFrame) -> StudyFigure:
    """One panel for each quantity; thin lines are seeds, the full line is their mean."""
    df = df.assign(series=df["series"].astype(int), id=df["id"].fillna(""))  # a mean has no cell
    names = [name for name in QUANTITIES if (df["panel"] == name).any()]
    styles = style.batch_size_styles(sorted(set(df["series"])))
    labels = [f"{'' if i else 'B = '}{style.format_size(size)}" for i, size in enumerate(styles)]
    handles = [
        Line2D([], [], color=look.colour, label=label)
        for look, label in zip(styles.values(), labels, strict=True)
    ]
    columns = layout.arrange(len(names), wide=3, narrow=2)
    fig, every = layout.make_figure(
        df,
        title="Training dynamics at each batch size (sigmoid)",
        caption=_words(df),
        columns=columns,
        heights=1.3,
        legend=handles,
    )
    for axes, name in zip(every, names, strict=True):
        part = df[df["panel"] == name]
        for (size, kind, _), run in part.groupby(["series", "kind", "id"]):
            thin: dict[str, Any] = {"linewidth": 0.5, "alpha": 0.4} if kind == "seed" else {}
            axes.plot(run["x"].astype(float), run["value"], color=styles[size].colour, **thin)
        axes.set_title(QUANTITIES[name], loc="left")
        if name in LOGARITHMIC:
            positive = part.loc[part["value"] > 0, "value"]
            # The first and last updates of a schedule are almost zero.
            low = max(positive.min(), positive.max() / 1e3)
            axes.set_ylim(low / 1.1, positive.max() * 1.1)
            style.plain_log(axes)
        style.examples_axis(axes, [], log=False)
    layout.hide_inner_labels(every, columns)
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
