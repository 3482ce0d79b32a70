"""The frame of every figure: panels, title and legend in the picture, the caption beside it.

`make_figure` is the one place that puts words around the panels.
"""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from analysis.figures.plot.style import BODY, RC, context, current_page
from analysis.figures.plot.ticks import text_width

# Embedding DejaVu in a PDF warns about the date in the font.
logging.getLogger("fontTools").setLevel(logging.ERROR)
MISSING = 4  # missing cells that a caption names
LATEX = {
    **{c: rf"\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"·": r"$\cdot$", "\N{MINUS SIGN}": "$-$", "<": "$<$", ">": "$>$"},
    **{"\N{PLUS-MINUS SIGN}": r"$\pm$", "…": r"\dots{}"},
}


class StudyFigure(Figure):
    """A figure with its words; a notebook shows it when it is the last value of a cell.

    Attributes:
      title: short, in the picture unless it is bare.
      title_inches: the height of the title at the top of the picture.
      caption: sentences for the reader of a paper, never in the picture.
      provenance: which records and printed numbers it was drawn from.
    """

    title: str = ""
    title_inches: float = 0.0
    caption: tuple[str, ...] = ()
    provenance: str = ""

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        """As wide on the page where pyplot was imported, which draws it by itself."""
        buffer = io.BytesIO()
        with context():
            fix_layout(self)
            self.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
        content = base64.b64encode(buffer.getvalue()).decode()
        width = {"width": round(110 * self.get_figwidth())}
        return {"image/png": content, "text/plain": repr(self)}, {"image/png": width}


def make_figure(
    table: pd.DataFrame,
    *,
    title: str,
    heights: float | Sequence[float],
    caption: Iterable[str] = (),
    columns: Sequence[int] = (1,),
    stretch: bool = False,
    legend: Sequence[Any] = (),
    align: bool = True,
) -> tuple[StudyFigure, list[Axes]]:
    """Rows of panels on the current page (`style.page`), under a title and one legend.

    Args:
      table: its `attrs` complete the caption, see `points.make_table`.
      heights: of the rows, in inches; on a page of fixed height their ratios. One number is that
        of all rows.
      caption: sentences that say what is drawn, and how.
      columns: panels in each row, see `arrange`. They are returned row by row.
      stretch: whether the panels of a row with fewer of them are wider.
      legend: handles, read row by row.
      align: whether the y labels of a column of panels stand below one another.
    """
    page = current_page()
    rows = [heights] * len(columns) if isinstance(heights, int | float) else list(heights)
    head = textwrap.wrap(title, round(14 * page.width)) if page.titled else []
    across = _legend_columns([str(handle.get_label()) for handle in legend], page.width)
    lines = -(-len(legend) // across)
    titles = len(head) * BODY * 1.3 / 72 + (0.06 if head else 0.02)
    above = titles + lines * BODY * 1.5 / 72
    total = page.height or above + sum(rows)
    fig = StudyFigure(figsize=(page.width, total), dpi=page.dpi, layout="constrained")
    FigureCanvasAgg(fig)
    engine: Any = fig.get_layout_engine()
    engine.set(rect=(0, 0, 1, 1 - above / total), h_pad=0.05, w_pad=0.04)
    wide = math.lcm(*columns) if stretch else max(columns)
    grid = fig.add_gridspec(len(rows), wide, height_ratios=rows)
    spans = [wide // count if stretch else 1 for count in columns]
    axes = [
        fig.add_subplot(grid[i, j * span : (j + 1) * span])
        for i, (count, span) in enumerate(zip(columns, spans, strict=True))
        for j in range(count)
    ]
    for one in axes:
        one.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if align:
        fig.align_ylabels(axes)
    left = 0.05 / page.width
    if head:
        words = "\n".join(head)
        fig.text(left, 1 - 0.04 / total, words, fontsize=BODY + 0.5, weight="bold", va="top")
    if legend:
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (left, 1 - titles / total)}
        place |= {"borderaxespad": 0, "borderpad": 0.1}
        box = fig.legend(handles=row_major(legend, across), ncol=across, **SPACING, **place)
        box.set_in_layout(False)
    fig.title_inches = titles - 0.02 if head else 0.0
    fig.title, fig.provenance = title, str(table.attrs.get("provenance", ""))
    fig.caption = tuple(caption_of(table, *caption))
    return fig, axes


SPACING: dict[str, Any] = {"columnspacing": 1.1, "handletextpad": 0.4, "labelspacing": 0.35}


def arrange(panels: int, *, wide: int, narrow: int = 1) -> list[int]:
    """How many of these panels stand in each row of the current page; rows differ by one at most.

    Args:
      wide, narrow: the most that stand side by side on a page of text or a slide, and in a column.
    """
    rows = -(-panels // (wide if current_page().wide else narrow))
    return [len(row) for row in np.array_split(range(panels), rows)] if rows else []


def _rows(axes: Sequence[Axes], columns: Sequence[int]) -> Iterator[tuple[Sequence[Axes], int]]:
    """The panels of each row, and how many come after them."""
    first = 0
    for count in columns:
        row = axes[first : first + count]
        first += count
        yield row, len(axes) - first


def hide_inner_labels(axes: Sequence[Axes], columns: Sequence[int]) -> None:
    """Keeps the y label of the first panel of each row, and the x label of the last in a column.

    For panels that share what is on their axes.
    """
    for row, _ in _rows(axes, columns):
        for one in row[1:]:
            one.set_ylabel("")
    hide_inner_x_labels(axes, columns)


def hide_inner_x_labels(axes: Sequence[Axes], columns: Sequence[int]) -> None:
    """Keeps the x label of the last panel of each column."""
    for row, after in _rows(axes, columns):
        for one in row[:after]:
            one.set_xlabel("")


def share_limits(axes: Sequence[Axes], axis: str = "y") -> None:
    """One scale for all panels."""
    limits = [getattr(one, f"get_{axis}lim")() for one in axes]
    for one in axes:
        getattr(one, f"set_{axis}lim")(
            min(low for low, _ in limits), max(high for _, high in limits)
        )


def share_y(axes: Sequence[Axes], columns: Sequence[int]) -> None:
    """One y scale for all panels, with numbers at the first of each row."""
    share_limits(axes)
    for row, _ in _rows(axes, columns):
        for at, one in enumerate(row):
            one.tick_params(labelleft=at == 0)


def caption_of(table: pd.DataFrame, *sentences: str) -> list[str]:
    """These sentences, what the cells share, the notes of the table and its missing cells."""
    notes = [f"{note[0].upper()}{note[1:]}." for note in table.attrs.get("notes", ())]
    setting = table.attrs.get("title")
    lines = [*sentences, *([f"Runs: {setting}."] if setting else []), *notes]
    if missing := table.attrs.get("missing", ()):
        rest = f"; and {len(missing) - MISSING} more" if len(missing) > MISSING else ""
        names = [name if len(name) <= 90 else name[:89] + "…" for name in missing[:MISSING]]
        lines.append(f"Missing: {'; '.join(names)}{rest}.")
    return lines


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """The columns of the fewest lines in which these labels fit a width in inches."""
    spaces = SPACING["handletextpad"] + SPACING["columnspacing"]
    handle = (RC["legend.handlelength"] + spaces) * BODY
    points = [72 * text_width(x, RC["font.family"], BODY - 0.5) for x in labels]
    for count in range(len(labels), 1, -1):
        each = [max(points[column::count]) + handle for column in range(count)]
        if sum(each) * 1.04 <= (width - 0.15) * 72:
            lines = -(-len(labels) // count)
            return -(-len(labels) // lines)  # as many in each line
    return 1


def row_major(entries: Sequence[Any], columns: int) -> list[Any]:
    """Entries in the order in which a legend with `columns` columns reads row by row."""
    return [entry for column in range(columns) for entry in entries[column::columns]]


# --- files ----------------------------------------------------------------------------------------


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


@contextlib.contextmanager
def _laid_out(fig: Figure) -> Iterator[None]:
    """For printing on canvases: `savefig` would draw each a second time, to measure what has been
    laid out already."""
    dpi = fig.dpi
    with context():
        fix_layout(fig)
        yield
    fig.set_dpi(dpi)


def render_svg(fig: StudyFigure) -> str:
    """The figure without its title, which is left as blank space, and without a background."""
    buffer = io.StringIO()
    with _laid_out(fig):
        for patch in (fig.patch, *(axes.patch for axes in fig.axes)):
            patch.set_facecolor("none")
        if fig.title_inches:
            fig.texts[0].set_visible(False)
        FigureCanvasSVG(fig).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def save(fig: StudyFigure, stem: Path) -> tuple[Path, ...]:
    """Writes `<stem>.png`, `.pdf`, and the caption as `.md` and `.tex`.

    The same figure gives the same bytes. Caption and provenance are in the metadata too.
    """
    png, pdf, md, tex = (
        stem.with_name(f"{stem.name}.{end}") for end in ("png", "pdf", "md", "tex")
    )
    caption = " ".join(fig.caption)
    with _laid_out(fig):
        words = {"Title": fig.title, "Description": caption, "Source": fig.provenance}
        FigureCanvasAgg(fig).print_png(png, metadata={"Software": None} | words)
        undated = {"CreationDate": None, "ModDate": None, "Producer": None}
        words = {"Title": fig.title, "Subject": caption, "Keywords": fig.provenance}
        FigureCanvasPdf(fig).print_pdf(pdf, metadata=undated | words)
    source = f"\n\n*Source: {fig.provenance}.*" if fig.provenance else ""
    md.write_text(f"**{fig.title}.** {caption}{source}\n", encoding="utf-8")
    tex.write_text(
        f"% {fig.provenance}\n\\caption{{\\textbf{{{to_latex(fig.title)}.}} {to_latex(caption)}}}\n"
        f"\\label{{fig:{stem.name}}}\n",
        encoding="utf-8",
    )
    return png, pdf, md, tex


def to_latex(words: str) -> str:
    """Text with LaTeX's special characters escaped."""
    words = re.sub(r"(?<!\w)-(?=[\d.])", "\N{MINUS SIGN}", words)  # of a number, not a hyphen
    return re.sub("|".join(map(re.escape, LATEX)), lambda match: LATEX[match[0]], words)
