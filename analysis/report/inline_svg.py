"""A figure as SVG inside a page: its text is text, and every marker says what it is.

A browser shows the `<title>` of a shape when the pointer is on it, so no script is needed for that.
`page.js` hides and shows the marks of a series by their ids, and zooms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter

from analysis.figures.plot.layout import StudyFigure, render_svg

MOST_TITLES = 1500  # markers of a figure; with more of them, they have no titles
XLINK = "http://www.w3.org/1999/xlink"
POINTS = 72  # SVG units per inch
NO_MARKER = (None, "", " ", "None", "none")


@dataclass(frozen=True, kw_only=True)
class InlineSvg:
    """An `<svg>` element, and the labels of the series that can be hidden, in order."""

    markup: str
    series: tuple[str, ...]


def inline_svg(fig: StudyFigure, name: str, alt: str) -> InlineSvg:
    """Renders a figure for a page, without its title: the page has it as text.

    Args:
      name: prefix of every id in the markup, unique on the page. The marks of the k-th series have
        ids that begin with `<name>.series-<k>.`, and its marker titles `data-series="<k>"`.
      alt: what the figure shows, for those who do not see it.
    """
    series = _Series.of(fig)
    drawn = set()
    for number, artist in enumerate(_artists(fig)):
        if (index := series.find(artist)) is not None:
            artist.set_gid(f"series-{index}.{number}")
            drawn.add(index)
    svg = render_svg(fig)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}.', svg)
    svg = re.sub(r'href="#|url\(#', lambda match: f"{match[0]}{name}.", svg)
    width, height = fig.get_size_inches() * POINTS
    top = fig.title_inches * POINTS
    tag = (
        f'<svg viewBox="0 {top:g} {width:g} {height - top:g}" role="img" '
        f'aria-label="{escape(alt)}" xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    titles = list(_titles(fig, series))
    body = svg[svg.index(">") + 1 : svg.rindex("</svg>")]
    body += "".join(titles) if len(titles) <= MOST_TITLES else ""
    labels = tuple(label if i in drawn else "" for i, label in enumerate(series.labels))
    return InlineSvg(markup=f"{tag}{body}</svg>", series=labels)


@dataclass(frozen=True, kw_only=True)
class _Series:
    """The entries of a figure's legends, found by colour, or colour and marker where one colour
    has several."""

    labels: tuple[str, ...]
    looks: tuple[tuple[str, Any], ...]  # colour and marker

    @classmethod
    def of(cls, fig: StudyFigure) -> _Series:
        legends = [*fig.legends, *(axes.get_legend() for axes in fig.axes)]
        entries = {
            " ".join(text.get_text().split()): _look(handle)
            for legend in legends
            if legend
            for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True)
            if handle is not None
        }
        return cls(labels=tuple(entries), looks=tuple(entries.values()))

    def find(self, artist: Artist) -> int | None:
        """The index of an artist's series; None if no legend has it."""
        colour, marker = _look(artist)
        same = [i for i, look in enumerate(self.looks) if look[0] == colour]
        if len(same) > 1:
            same = [i for i in same if self.looks[i][1] == marker]
        return same[0] if len(same) == 1 else None


def _look(artist: Artist) -> tuple[str, Any]:
    if isinstance(artist, Line2D):
        marker = artist.get_marker()
        return to_hex(artist.get_color()), None if marker in NO_MARKER else marker
    for getter in ("get_facecolor", "get_edgecolor"):
        colours = np.atleast_2d(getattr(artist, getter, lambda: [])())
        if colours.size:
            return to_hex(colours[0], keep_alpha=False), None
    return "", None


def _artists(fig: StudyFigure) -> Iterator[Artist]:
    for axes in fig.axes:
        yield from (*axes.lines, *axes.collections)


def _titles(fig: StudyFigure, series: _Series) -> Iterator[str]:
    """An invisible circle with a title over every marker."""
    width, height = fig.get_size_inches() * POINTS
    for axes in fig.axes:
        names = _axis_name(fig, axes, "x"), _axis_name(fig, axes, "y")
        for line in axes.lines:
            if line.get_marker() in NO_MARKER or not line.get_visible():
                continue
            index = series.find(line)
            label = f"{series.labels[index]}: " if index is not None else ""
            own = f' data-series="{index}"' if index is not None else ""
            columns = [np.asarray(values, dtype=float) for values in line.get_data(orig=False)]
            data = np.column_stack(columns)
            data = data[np.isfinite(data).all(axis=1)]
            places = fig.transFigure.inverted().transform(line.get_transform().transform(data))
            for (x, y), (right, up) in zip(data, places, strict=True):
                if not (0 <= right <= 1 and 0 <= up <= 1):  # beyond the limits of its axes
                    continue
                words = f"{names[0]} {_format(axes.xaxis, x)}, {names[1]} {_format(axes.yaxis, y)}"
                yield (
                    f'<circle class="mark" cx="{right * width:.1f}" cy="{(1 - up) * height:.1f}" '
                    f'r="5"{own}><title>{escape(label + words)}</title></circle>'
                )


def _axis_name(fig: StudyFigure, axes: Axes, axis: str) -> str:
    """The label of an axis; that of the next panel which shows it, where panels share one."""
    at = axes.get_position()
    for other in (axes, *reversed(fig.axes)):
        place = other.get_position()
        aligned = abs(place.x0 - at.x0) if axis == "x" else abs(place.y0 - at.y0)
        label = getattr(other, f"get_{axis}label")()
        if label and aligned < 0.01:
            return " ".join(label.split())
    return ""


def _format(axis: Axis, value: float) -> str:
    """A value, or the name of its tick on an axis of names."""
    formatter = axis.get_major_formatter()
    if isinstance(formatter, FixedFormatter) and axis.get_scale() == "linear":
        ticks = [float(tick) for tick in axis.get_majorticklocs()]
        nearest = min(range(len(ticks)), key=lambda at: abs(ticks[at] - value), default=-1)
        if nearest >= 0 and abs(ticks[nearest] - value) < 0.5:
            name = " ".join(formatter.format_ticks(ticks)[nearest].split())
            if name:
                return name
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
