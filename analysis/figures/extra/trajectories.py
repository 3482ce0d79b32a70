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
from analysis.figures.extra.rate_by_batch import style_of
from analysis.figures.plot import marks, points, style
from analysis.figures.plot.quality import between, missing_note
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


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is the quantity, series the batch size, x the examples seen; see `points.curves`."""
    for image in ("cached", "vit"):
        panel = inputs.chosen(panels.batch_sizes, image=image)
        done = panel.done[panel.done["loss.kind"] == "sigmoid"]
        if len(done):
            done = done.assign(series=done["batch_size"])
            rows = [row for key in QUANTITIES for row in points.curves(inputs.rows, done, key, key)]
            return points.frame(rows, panels=[panel], title=panels.title(panel))
    return points.frame([])


def draw(df: pd.DataFrame) -> Figure:
    """One panel for each quantity; thin lines are seeds, the full line is their mean."""
    names = [name for name in QUANTITIES if (df["panel"] == name).any()]
    sizes = sorted({int(size) for size in df["series"]})
    looks = dict(zip(sizes, style_of(sizes), strict=True))
    pairs, across = -(-len(names) // 2), 5
    with style.context():
        fig, axes = style.figure(
            heights=[0.18 * -(-len(sizes) // across), *[1.15] * pairs],
            columns=[1, *[2] * pairs],
            title="What training does at each batch size (sigmoid)",
            notes=_notes(df),
            footer=df.attrs.get("provenance", ""),
        )
        handles = [
            Line2D(
                [],
                [],
                color=looks[size].colour,
                label=f"{'B = ' if size == sizes[0] else ''}{style.short(size)}",
            )
            for size in sizes
        ]
        style.key(axes[0], handles, columns=across)
        for one, name in zip(axes[1:], names, strict=False):
            for (size, what, _), line in lines(df[df["panel"] == name]):
                thin: dict[str, Any] = {"linewidth": 0.5, "alpha": 0.4} if what == "seed" else {}
                one.plot(line["x"].astype(float), line["value"], color=looks[size].colour, **thin)
            one.set_ylabel(QUANTITIES[name])
            if name in LOGARITHMIC:
                known = df.loc[(df["panel"] == name) & (df["value"] > 0), "value"]
                # The first and last updates of a schedule are as good as none.
                one.set_ylim(max(known.min(), known.max() / 1e3) / 1.1, known.max() * 1.1)
                marks.plain_log(one)
            one.xaxis.set_major_locator(MaxNLocator(3))
            one.xaxis.set_major_formatter(lambda x, _: style.count(x))
        for one in axes[1 + len(names) :]:
            one.set_axis_off()
        for one in axes[max(1, len(names) - 1) : len(names) + 1]:
            one.set_xlabel("examples seen")
    return fig


def lines(df: pd.DataFrame) -> Any:
    """The curves of one panel by (batch size, what, cell); a mean has no cell."""
    keyed = df.assign(series=df["series"].astype(int), id=df["id"].fillna(""))
    return ((key, line) for key, line in keyed.groupby(["series", "what", "id"]))


def _notes(df: pd.DataFrame) -> list[str]:
    cells = df.loc[df["what"] == "seed", ["series", "id"]].drop_duplicates()
    seeds = between(cells.groupby("series").size())
    said = [f"{df.attrs['title']}."] if df.attrs.get("title") else []
    said.append(
        f"{seeds} of each batch size: thin lines; full: their mean. Of the last step of each "
        "logged stretch. The mean logit of negatives is over all of them."
    )
    ends = df[(df["what"] == "seed") & (df["panel"] == "train/b")]
    if len(ends):
        last = ends.sort_values("x").groupby(["series", "id"])["value"].last()
        means = last.groupby(level=0).mean()
        biases = ", ".join(f"{b:.1f} at {style.short(int(size))}" for size, b in means.items())
        prior = ", ".join(f"{-np.log(int(size) - 1):.1f}" for size in means.index)
        said.append(f"Bias at the end: {biases}; the log-odds of a pair are {prior}.")
    return [*said, *missing_note(df.attrs.get("missing", []))]


trajectories = Plot("trajectories", data, draw)
