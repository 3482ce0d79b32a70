"""SigLiT: quality against batch size, sigmoid and softmax (paper Sec. 4.1, Fig. 2 left)."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import quality, style


def data(inputs: Inputs) -> pd.DataFrame:
    """The SigLiT panel of a study, see `quality.data`."""
    return quality.data(inputs, image="cached")


def draw(df: pd.DataFrame) -> Figure:
    """Ours; sigmoid minus softmax, paired; and the paper's Fig. 2 left where it is at hand."""
    theirs = (df["panel"] == "paper").any()
    with style.context():
        fig, axes = style.figure(
            heights=[2.1, 1.5, 1.7] if theirs else [2.1, 1.5],
            title="SigLiT: zero-shot quality against batch size",
            notes=[f"Ours: {df.attrs.get('title', '')}.", *quality.notes(df)],
            footer=df.attrs.get("provenance", ""),
        )
        quality.draw_ours(axes[0], df)
        quality.draw_difference(axes[1], df)
        if theirs:
            quality.draw_paper(axes[2], df)
    return fig


batch_size = Plot("batch_size", data, draw)
