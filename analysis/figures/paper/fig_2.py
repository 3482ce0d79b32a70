"""Fig. 2: the effect of the batch size (paper Sec. 4.1, 4.2, 4.3).

Cells, by their fields; none on corrupted data or started from a checkpoint:

- left, SigLiT: `model.image.kind` = cached, sigmoid with all pairs and softmax;
- middle, SigLIP from scratch: `model.image.kind` = vit, the same losses, no multilingual `evals`;
- right, mSigLIP: sigmoid with all pairs and a multilingual evaluation in `evals`
  (`data.text_length` below 64: those of 64 are the scaled-up run).

In each the batch size varies and nothing else; of several budgets the longest with two sizes.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis import paper
from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import points, style
from analysis.figures.plot import side_by_side as beside
from analysis.figures.plot.side_by_side import PanelSpec
from analysis.select import panels

LANGUAGES = "text_to_image_r1"
SPECS = [
    PanelSpec(
        name=name,
        title=title,
        label=label,
        axis=style.batch_axis,
    )
    for name, title, label in (
        ("left", "SigLiT", "ImageNet\n0-shot (%)"),
        ("middle", "SigLIP from scratch", "ImageNet\n0-shot (%)"),
        ("right", "mSigLIP, 36 languages", "XM3600 text to\nimage R@1 (%)"),
    )
]


def data(inputs: Inputs) -> pd.DataFrame:
    """The points of the three panels, see `points`."""
    rows: list[dict[str, Any]] = []
    used, missing, titles = [], [], []
    for name, panel in panels_of(inputs).items():
        metric = retrieval(panel.cells) if name == "right" else inputs.quality_of(panel.cells)
        done = panel.done
        rows += points.ours(
            done.assign(series=done["loss.kind"], x=done["batch_size"]), name, metric
        )
        missing += points.unmeasured(panel, metric)
        if len(panel.cells):
            used.append(panel)
            titles.append(f"{name}: {points.short_title(panel)}")
    for spec in SPECS:
        table = paper.reference("Fig. 2", panel=spec.name)
        rows += points.printed(
            table, spec.name, series=table["series"].str.lower().tolist(), x=table["x"].astype(int)
        )
    return points.frame(rows, panels=used, missing=missing, title="; ".join(titles))


def draw(df: pd.DataFrame) -> Figure:
    """Left, middle and right above one another."""
    looks = {name: style.STYLES[name] for name in ("sigmoid", "softmax")}
    return beside.draw(df, SPECS, looks, title="Fig. 2: the effect of the batch size")


def panels_of(inputs: Inputs) -> dict[str, panels.Panel]:
    """The cells of the three panels."""
    images = {"left": "cached", "middle": "vit"}
    budgets = {name: inputs.chosen(panels.by_budget, image=i) for name, i in images.items()}
    return {
        **{n: panels.longest(inputs.cells, budgets[n], image=i) for n, i in images.items()},
        "right": inputs.chosen(by_language),
    }


def by_language(cells: pd.DataFrame) -> panels.Panel:
    """The cells of the right panel, of Fig. 8 and of Tables 2 and 9."""
    cells = panels.plain(cells)
    own = panels.multilingual(cells) & ~panels.scaled_up(cells)
    own &= (cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all")
    return panels.select(cells[own], ("batch_size",), free=("optimizer.learning_rate",))


def retrieval(cells: pd.DataFrame, measure: str = LANGUAGES) -> str:
    """The mean over languages of what cells were evaluated on, XM3600 before others."""
    keys = [k for k in cells if k.startswith("eval/multilingual/") and k.endswith(f"/{measure}")]
    keys = [key for key in keys if cells[key].notna().any()]
    xm = paper.find_metric(keys, "XM3600", kind="multilingual", measure=measure)
    return xm or min(keys, default=f"eval/multilingual/xm3600/test/{measure}")


fig_2 = Plot("fig_2", data, draw)
