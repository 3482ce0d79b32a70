"""A figure as PNG in memory, for a notebook or a page."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from analysis import figures
from analysis.errors import AnalysisError
from analysis.figures.inputs import Inputs
from analysis.figures.plot import style
from analysis.figures.plot.figure_io import tabled

DPI = 110


def png(name: str, inputs: Inputs, *, dpi: int = DPI) -> bytes:
    """The figure of this name (see `figures.FIGURES`) on these cells, or on the paper's numbers.

    Raises:
      AnalysisError: there is no such figure, or no cell belongs to it.
    """
    if name not in figures.FIGURES:
        raise AnalysisError(f"no figure {name!r}; there are: {', '.join(figures.FIGURES)}")
    table, _, skipped = tabled(figures.FIGURES[name], inputs)
    if skipped:
        raise AnalysisError(f"{name} is not drawn: {skipped}")
    return pixels(figures.FIGURES[name].draw(table), dpi=dpi)


def pixels(fig: Figure, *, dpi: int = DPI) -> bytes:
    """A drawn figure as PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with style.context():
        style.settle(fig)
        fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
