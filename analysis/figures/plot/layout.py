"""The frame of every figure: panels, title, caption, legends; and the figure as a file.

`make_figure` is the one place that puts words around the panels.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path

from analysis.figures.plot.style import BODY, DPI, RC, SMALL, WIDTH, context

LINE = SMALL * 1.22 / 72  # inches per line of the caption
COLUMNS = 76  # characters of the caption in one column
MISSING = 4  # missing cells that a caption names


class NotebookFigure(Figure):
    """A figure that a notebook shows when it is the last value of a cell."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        content = render(self, "png", dpi=110, metadata={"Software": None})
        return content, {"width": round(110 * self.get_figwidth())}


def make_figure(
    *,
    heights: Sequence[float],
    title: str,
    caption: Iterable[str] = (),
    footer: str = "",
    columns: Sequence[int] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Panels above one another, with a title above and a caption below.

    The figure grows with its text, so that nothing overlaps.

    Args:
      heights: of the rows of panels, in inches.
      columns: panels in each row; one by default. They are returned row by row.
    """
    head = textwrap.wrap(title, 58)
    foot = [line for note in caption for line in _wrap(note)]
    above, below = (len(head) * BODY * 1.3 / 72 + 0.06), (len(foot) + 1) * LINE + 0.08
    total = above + sum(heights) + below
    fig = NotebookFigure(figsize=(WIDTH, total), dpi=DPI, layout="constrained")
    FigureCanvasAgg(fig)
    engine: Any = fig.get_layout_engine()
    engine.set(rect=(0, below / total, 1, sum(heights) / total), h_pad=0.05, w_pad=0.04)
    counts = list(columns or [1] * len(heights))
    wide = math.lcm(*counts)
    grid = fig.add_gridspec(len(heights), wide, height_ratios=list(heights))
    axes = [
        fig.add_subplot(grid[i, j * wide // count : (j + 1) * wide // count])
        for i, count in enumerate(counts)
        for j in range(count)
    ]
    fig.align_ylabels(axes)
    left = 0.02
    fig.text(left, 1 - 0.04 / total, "\n".join(head), fontsize=BODY, weight="bold", va="top")
    fig.text(
        *(left, (below - 0.03) / total, "\n".join(foot)), fontsize=SMALL, color="#333333", va="top"
    )
    fig.text(0.985, 0.03 / total, footer, fontsize=SMALL - 0.5, color="#777777", ha="right")
    return fig, axes


def caption_of(df: pd.DataFrame, *sentences: str, title: bool = True) -> list[str]:
    """The caption of a figure: its title, these sentences, its notes and its missing cells."""
    notes = [f"{note[0].upper()}{note[1:]}." for note in df.attrs.get("notes", ())]
    head = [f"{df.attrs['title']}."] if title and df.attrs.get("title") else []
    missing = df.attrs.get("missing", ())
    lines = [*head, *sentences, *notes]
    if missing:
        rest = f"; and {len(missing) - MISSING} more" if len(missing) > MISSING else ""
        names = [name if len(name) <= 90 else name[:89] + "…" for name in missing[:MISSING]]
        lines.append(f"Missing: {'; '.join(names)}{rest}.")
    return lines


def _wrap(note: str) -> list[str]:
    """A note in lines of small text that end inside the figure; digits are wider than letters."""
    font, columns = FontProperties(family=RC["font.family"], size=SMALL), COLUMNS
    while True:
        lines = textwrap.wrap(note, columns)
        points = [text_to_path.get_text_width_height_descent(x, font, False)[0] for x in lines]
        # Pixels take a little more room than the outlines that are measured here.
        if max(points, default=0) <= 0.93 * WIDTH * 72 or columns < 40:
            return lines
        columns -= 2


def legend_row(axes: Axes, handles: Sequence[Any], columns: int) -> None:
    """A row of the figure that holds nothing but the legend of the panels below it."""
    axes.set_axis_off()
    axes.legend(
        handles=list(handles), ncol=columns, loc="center left", bbox_to_anchor=(-0.02, 0.5),
        columnspacing=0.9, handletextpad=0.4, borderaxespad=0.0,
    )  # fmt: skip


def legend_above(axes: Axes, handles: Sequence[Any] | None = None, columns: int = 4) -> None:
    """A legend above the panel, where it hides no data."""
    entries = axes.get_legend_handles_labels()[0] if handles is None else list(handles)
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.03, 0.97)}
    axes.legend(handles=entries, ncol=columns, columnspacing=0.8, handletextpad=0.4, **place)


def fix_layout(fig: Figure) -> None:
    """Lays the panels out, once for every format that the figure is saved in.

    The solver's answer differs in its last digits from run to run, which would show in the pixels:
    positions are rounded to a ten-thousandth of the figure.
    """
    engine = fig.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.execute(fig)
        fig.set_layout_engine("none")
        for axes in fig.axes:
            left, bottom, width, height = axes.get_position(original=True).bounds
            axes.set_position((round(left, 4), round(bottom, 4), round(width, 4), round(height, 4)))


def render(fig: Figure, kind: str, **options: Any) -> bytes:
    """The figure as "png" or "svg"; options are those of `savefig`."""
    buffer = io.BytesIO()
    with context():
        fix_layout(fig)
        fig.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def save(fig: Figure, stem: Path) -> tuple[Path, Path]:
    """Writes `<stem>.png` and `<stem>.pdf`; the same figure gives the same bytes."""
    png, pdf = stem.with_suffix(".png"), stem.with_suffix(".pdf")
    with context():
        fix_layout(fig)
        # `savefig` would draw each a second time, to measure what has been laid out already.
        FigureCanvasAgg(fig).print_png(png, metadata={"Software": None})
        undated = {"CreationDate": None, "ModDate": None, "Producer": None}
        FigureCanvasPdf(fig).print_pdf(pdf, metadata=undated)
        fig.set_dpi(DPI)
    return png, pdf
