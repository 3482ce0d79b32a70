"""One look for every figure: one column wide, colour-blind safe, and readable in grey.

A series has a colour, a marker and a line of its own, and the colours differ in lightness. Our
points are filled, the paper's hollow. Each figure says in a corner which records it is drawn from.
"""

from __future__ import annotations

import hashlib
import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path

WIDTH, DPI = 3.5, 200  # inches: one column
BODY, SMALL = 7.5, 6.0  # points
LINE = SMALL * 1.22 / 72  # inches per line of small text
COLUMNS = 76  # characters of small text in one column

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": BODY,
    "axes.labelsize": BODY,
    "axes.titlesize": BODY,
    "xtick.labelsize": BODY - 0.5,
    "ytick.labelsize": BODY - 0.5,
    "legend.fontsize": BODY - 0.5,
    "legend.frameon": False,
    "legend.handlelength": 1.9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.visible": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "study",
    "savefig.dpi": DPI,
    "figure.facecolor": "white",
}


class NotebookFigure(Figure):
    """A figure that a notebook shows when it is the last value of a cell."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return png(self), {"width": round(110 * self.get_figwidth())}


@dataclass(frozen=True, kw_only=True)
class SeriesStyle:
    colour: str
    marker: str
    line: Any = "-"


STYLES: Mapping[str, SeriesStyle] = {
    "sigmoid": SeriesStyle(colour="#0b3c7d", marker="o"),
    "softmax": SeriesStyle(colour="#e08a00", marker="s", line=(0, (4, 1.5))),
    "difference": SeriesStyle(colour="#333333", marker="D"),
    "all": SeriesStyle(colour="#111111", marker="*"),
    "random": SeriesStyle(colour="#cf5318", marker="s", line=(0, (4, 1.5))),
    "hard": SeriesStyle(colour="#0b3c7d", marker="o"),
    "easy": SeriesStyle(colour="#6fb7e0", marker="^", line=(0, (1, 1.2))),
    "hard, matched pairs": SeriesStyle(colour="#8a8a8a", marker="D", line=(0, (5, 1.2, 1, 1.2))),
    "sigmoid, small batch": SeriesStyle(colour="#6fb7e0", marker="^", line=(0, (1, 1.2))),
    "softmax, small batch": SeriesStyle(colour="#8c5200", marker="v", line=(0, (5, 1.2, 1, 1.2))),
}
# Series in an order (batch sizes, values of a setting): from dark to light, each its own marker.
STEPS: Sequence[SeriesStyle] = (
    SeriesStyle(colour="#00204d", marker="o"),
    SeriesStyle(colour="#3f4c6b", marker="s", line=(0, (4, 1.5))),
    SeriesStyle(colour="#7c7b78", marker="^", line=(0, (1, 1.2))),
    SeriesStyle(colour="#a8a06c", marker="D", line=(0, (5, 1.2, 1, 1.2))),
    SeriesStyle(colour="#d9c74f", marker="v", line=(0, (3, 1, 1, 1, 1, 1))),
    SeriesStyle(colour="#cf5318", marker="P", line=(0, (6, 2))),
)


def context() -> AbstractContextManager[None]:
    """The style, for the time of a drawing, whatever the reader's own settings are."""
    return matplotlib.style.context(["default", RC])


def provenance(cells: pd.DataFrame) -> str:
    """A short hash over the contents of the records of these cells, and their number."""
    contents = "".join(sorted(cells["content"]))
    digest = hashlib.sha256(contents.encode()).hexdigest()[:10]
    return f"records {digest} · {len(cells)} cells"


def figure(
    *,
    heights: Sequence[float],
    title: str,
    notes: Iterable[str] = (),
    footer: str = "",
    columns: Sequence[int] | None = None,
) -> tuple[Figure, list[Axes]]:
    """Panels of these heights (inches) above one another, a title above, notes and footer below.

    The figure grows with its text, so that nothing overlaps.

    Args:
      columns: panels side by side in each row, where not one; they are returned row by row.
    """
    head = textwrap.wrap(title, 58)
    foot = [line for note in notes for line in _lines(note)]
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


def _lines(note: str) -> list[str]:
    """A note in lines of small text that end inside the figure; digits are wider than letters."""
    font, columns = FontProperties(family=RC["font.family"], size=SMALL), COLUMNS
    while True:
        found = textwrap.wrap(note, columns)
        points = [text_to_path.get_text_width_height_descent(x, font, False)[0] for x in found]
        # Pixels take a little more than outlines, which are what is measured.
        if max(points, default=0) <= 0.93 * WIDTH * 72 or columns < 40:
            return found
        columns -= 2


def key(axes: Axes, handles: Sequence[Any], columns: int) -> None:
    """A row of the figure that holds nothing but the legend of all panels below it."""
    axes.set_axis_off()
    axes.legend(
        handles=list(handles), ncol=columns, loc="center left", bbox_to_anchor=(-0.02, 0.5),
        columnspacing=0.9, handletextpad=0.4, borderaxespad=0.0,
    )  # fmt: skip


def legend(axes: Axes, handles: Sequence[Any] | None = None, columns: int = 4) -> None:
    """Above the panel, so that it hides no data."""
    shown = axes.get_legend_handles_labels()[0] if handles is None else list(handles)
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.03, 0.97)}
    axes.legend(handles=shown, ncol=columns, columnspacing=0.8, handletextpad=0.4, **place)


def batch_axis(axes: Axes, sizes: Sequence[int]) -> None:
    """A logarithmic batch-size axis with a tick at each size that is drawn, as far as they fit."""
    axes.set_xscale("log", base=2)
    step = -(-len(sizes) // 9)
    axes.set_xticks(sizes[::step], [short(b) for b in sizes[::step]])
    axes.set_xlabel("batch size B (examples per step)")
    if len(sizes) == 1:
        axes.set_xlim(sizes[0] / 2, sizes[0] * 2)


def narrow_batch_axis(axes: Axes, sizes: Sequence[int]) -> None:
    """As `batch_axis`, with a name for half a column; `thin` its ticks as well."""
    batch_axis(axes, sizes)
    axes.set_xlabel("batch size")


def thin(axes: Axes) -> None:
    """Leaves the ticks of a logarithmic x axis that have room for a label in half a column."""
    low, high = axes.get_xlim()
    gap = max(math.log2(high / low) / 5, 1e-9)
    labels = [text.get_text() for text in axes.get_xticklabels()]
    kept: dict[float, str] = {}
    for tick, label in sorted(zip(axes.get_xticks(), labels, strict=True)):
        inside = low <= tick <= high
        if inside and (not kept or math.log2(tick / list(kept)[-1]) >= gap):
            kept[tick] = label
    axes.set_xticks(list(kept), list(kept.values()))


def short(number: int) -> str:
    """A batch size: 4096 as 4k, 1048576 as 1M, 307200 as 300k."""
    for unit, size in (("M", 2**20), ("k", 2**10)):
        if number >= size and number % size == 0:
            return f"{number // size}{unit}"
    return str(number)


def count(number: float) -> str:
    """A number of examples: 450000000 as 450M, 3e9 as 3B, 300000 as 300k."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:  # what is rounded up to it has its unit too
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def examples_axis(axes: Axes, counts: Sequence[float], *, log: bool = True) -> None:
    """Examples seen, with a tick at each of these counts, as far as they fit."""
    if log:
        axes.set_xscale("log")
        axes.minorticks_off()
    step = max(1, -(-len(counts) // 7))
    axes.set_xticks(list(counts[::step]), [count(c) for c in counts[::step]])
    axes.set_xlabel("examples seen")
    if len(counts) == 1:
        axes.set_xlim(counts[0] / 2, counts[0] * 2)


def settle(fig: Figure) -> None:
    """Lays the panels out, once for every format that the figure is saved in.

    The solver's answer differs in its last digits from run to run, which would show in the pixels:
    places are rounded to a ten-thousandth of the figure.
    """
    engine = fig.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.execute(fig)
        fig.set_layout_engine("none")
        for axes in fig.axes:
            left, bottom, width, height = axes.get_position(original=True).bounds
            axes.set_position((round(left, 4), round(bottom, 4), round(width, 4), round(height, 4)))


def png(fig: Figure, *, dpi: int = 110) -> bytes:
    """The figure as PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with context():
        settle(fig)
        fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def save(fig: Figure, stem: Path) -> tuple[Path, Path]:
    """`<stem>.png` and `<stem>.pdf`, the same bytes for the same figure."""
    png, pdf = stem.with_suffix(".png"), stem.with_suffix(".pdf")
    with context():
        settle(fig)
        # `savefig` would draw each a second time, to measure what has been laid out already.
        FigureCanvasAgg(fig).print_png(png, metadata={"Software": None})
        undated = {"CreationDate": None, "ModDate": None, "Producer": None}
        FigureCanvasPdf(fig).print_pdf(pdf, metadata=undated)
        fig.set_dpi(DPI)
    return png, pdf
