"""SigLIP: both towers from scratch, quality against batch size (paper Sec. 4.2, Fig. 2 middle)."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import quality, style


def data(inputs: Inputs) -> pd.DataFrame:
    """The SigLIP panel of a study, see `quality.data`."""
    return quality.data(inputs, image="vit")


def draw(df: pd.DataFrame) -> Figure:
    """Ours, and the paper's Fig. 2 middle where it is at hand."""
    theirs = (df["panel"] == "paper").any()
    with style.context():
        fig, axes = style.figure(
            heights=[1.8, 1.6] if theirs else [1.8],
            title="SigLIP from scratch: quality against batch size",
            notes=[f"Ours: {df.attrs.get('title', '')}.", *quality.notes(df)],
            footer=df.attrs.get("provenance", ""),
        )
        quality.draw_ours(axes[0], df)
        if theirs:
            quality.draw_paper(axes[1], df)
    return fig


from_scratch = Plot("from_scratch", data, draw)
