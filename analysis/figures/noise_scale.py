"""The gradient noise scale along the runs, a diagnostic, with each batch size marked.

Cells: those of Fig. 2 that logged it (`train/noise_scale*`), by their fields.

In a contrastive loss the examples of a batch are coupled through their pairs, so this is not
McCandlish's noise of independent examples. It is drawn as what the record calls it.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from analysis import panels, style
from analysis.figures import points
from analysis.figures.inputs import Inputs
from analysis.figures.quality import missing_note
from analysis.figures.rate_by_batch import style_of
from analysis.figures.trajectories import _lines

PREFIX = "train/noise_scale"


def data(inputs: Inputs) -> pd.DataFrame:
    """Panel is the metric, series the batch size, x the examples seen; see `points.curves`."""
    logged = [key for key in inputs.cells if key.startswith(PREFIX)]
    for image in ("cached", "vit"):
        panel = panels.batch_sizes(inputs.cells, image=image)
        done = panel.done[panel.done["loss.kind"] == "sigmoid"]
        if logged and len(done):
            done = done.assign(series=done["batch_size"])
            rows = [row for key in logged for row in points.curves(inputs.rows, done, key, key)]
            rows = [row for row in rows if row["value"] > 0]  # an unbiased estimate may be below
            return points.frame(rows, panels=[panel], title=panels.title(panel))
    return points.frame([])


def draw(df: pd.DataFrame) -> Figure:
    """Noise scale against examples seen; the dashed line of each colour is its batch size."""
    names = list(dict.fromkeys(df["panel"]))
    sizes = sorted({int(size) for size in df["series"]})
    looks = dict(zip(sizes, style_of(sizes), strict=True))
    with style.context():
        fig, axes = style.figure(
            heights=[2.1] * len(names),
            title="Gradient noise scale, a diagnostic",
            notes=_notes(df),
            footer=df.attrs.get("provenance", ""),
        )
        for one, name in zip(axes, names, strict=True):
            for (size, what, _), line in _lines(df[df["panel"] == name]):
                thin = {"linewidth": 0.5, "alpha": 0.4} if what == "seed" else {"linewidth": 1.3}
                one.plot(line["x"].astype(float), line["value"], color=looks[size].colour, **thin)
            for size in sizes:
                one.axhline(size, color=looks[size].colour, linewidth=0.7, linestyle=(0, (4, 2)))
                one.plot([], [], color=looks[size].colour, label=f"B = {style.short(size)}")
            one.set_yscale("log", base=2)
            one.xaxis.set_major_formatter(lambda x, _: style.count(x))
            one.set_xlabel("examples seen")
            one.set_ylabel(f"{name.removeprefix('train/').replace('_', ' ')}\n(examples)")
            style.legend(one)
    return fig


def _notes(df: pd.DataFrame) -> list[str]:
    lines = [f"{df.attrs['title']}."] if df.attrs.get("title") else []
    lines.append(
        "Examples of a contrastive batch are coupled through their pairs, so this is not the noise "
        "of independent examples, and no batch size follows from it. Estimates that came out "
        "negative are not drawn. Dashed: the batch size of each colour."
    )
    return [*lines, *missing_note(df.attrs.get("missing", []))]
