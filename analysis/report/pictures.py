"""Figures for a page: each as an image inside the page, what it shows in words, and its numbers."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import layout
from analysis.report.tables import Table, of_frame

MOST_BYTES = 250_000  # of an SVG; a figure with more marks than that is sent as pixels


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One figure, or in `skipped` the reason why there is none.

    Attributes:
      name: as `study figures` names its files.
      source: a `data:` URI.
      width: inches on paper.
      alt: for those who do not see it: title, panels, series and notes.
      table: the means (or else the points) that it shows.
      missing: cells that it lacks.
    """

    name: str
    title: str = ""
    source: str = ""
    width: float = 0.0
    alt: str = ""
    table: Table | None = None
    missing: tuple[str, ...] = ()
    skipped: str | None = None


def pictures(figures: Mapping[str, Plot], inputs: Inputs) -> list[Picture]:
    """Every figure of this register, drawn or not."""
    return [_picture(name, plot, inputs) for name, plot in figures.items()]


def _picture(name: str, plot: Plot, inputs: Inputs) -> Picture:
    table, skipped = plot.numbers(inputs)
    missing = table.attrs.get("missing", ())
    if skipped:
        return Picture(name=name, missing=tuple(missing), skipped=skipped)
    fig = plot.draw(table)
    return Picture(
        name=name,
        title=_words(fig.texts[0].get_text()) if fig.texts else name,
        source=_data_uri(fig),
        width=float(fig.get_figwidth()),
        alt=alt(fig),
        table=of_frame(table),
        missing=tuple(missing),
    )


def alt(fig: Figure) -> str:
    """The words of a figure in reading order: title, what each panel plots, notes."""
    title, *notes = [_words(text.get_text()) for text in fig.texts] or [""]
    panels = [said for axes in fig.axes if (said := _panel(axes))]
    return " ".join(part for part in (f"{title}.", *panels, *notes) if part.strip(" ."))


def _panel(axes: Axes) -> str:
    x, y = _words(axes.get_xlabel()), _words(axes.get_ylabel())
    legend = axes.get_legend()
    series = [_words(text.get_text()) for text in legend.get_texts()] if legend else []
    what = f"{y} against {x}" if x and y else x or y or _words(axes.get_title())
    if not what:
        return ""
    return f"{what}: {', '.join(series)}." if series else f"{what}."


def _data_uri(fig: Figure) -> str:
    kind, content = "svg+xml", layout.render(fig, "svg", metadata={"Date": None, "Creator": None})
    if len(content) > MOST_BYTES:
        kind, content = "png", layout.render(fig, "png", metadata={"Software": None})
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _words(text: str) -> str:
    return " ".join(text.split())
