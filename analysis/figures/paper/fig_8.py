"""Fig. 8: retrieval by language, mSigLIP (paper App. D; its numbers are Table 9).

Cells, by their fields: those of Fig. 2 right, sigmoid with all pairs and a multilingual evaluation
in `evals`; one mark for each batch size. Those with `data.text_length` = 64 are the scaled-up run
of Sec. 4.6 (`*32k` in the paper), with marks of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import paper
from analysis.figures.base import Inputs, Plot
from analysis.figures.paper import fig_2
from analysis.figures.plot import points, style
from analysis.figures.plot import side_by_side as beside
from analysis.figures.plot.side_by_side import PanelSpec
from analysis.select import panels

DIRECTIONS = {"image_to_text": "image-to-text", "text_to_image": "text-to-image"}
HEBREW = {"he": "iw"}  # the code of the data set, and of the paper's table
SCALED = ", scaled up"


def data(inputs: Inputs) -> pd.DataFrame:
    """The marks, see `points`; x is the language, series the batch size."""
    found = cells_of(inputs.cells)
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    for direction, printed in DIRECTIONS.items():
        for panel, suffix in found:
            done = panel.done
            series = [style.short(int(size)) + suffix for size in done["batch_size"]]
            for language, metric in languages(done, direction).items():
                rows += points.ours(done.assign(series=series, x=language), direction, metric)
                missing += points.unmeasured(panel, metric) if language == "avg" else []
        rows += paper_rows(direction, printed)
    whole = [panel for panel, _ in found if len(panel.cells)]
    title = points.short_title(whole[0]) if whole else ""
    return points.frame(rows, panels=whole, missing=missing, title=title)


def draw(df: pd.DataFrame) -> Figure:
    """Image to text above, text to image below; the mean of all languages last."""
    names = _order(df["x"])
    looks = _looks(df["series"].unique())
    specs = [
        PanelSpec(
            name=name,
            title=printed.replace("-", " "),
            label="recall@1 (%)",
            axis=lambda axes, values: _axis(axes, names, values),
            height=2.0,
            lines=False,
        )
        for name, printed in DIRECTIONS.items()
    ]
    # Marks of one language stand beside each other: they would hide one another.
    at = df["x"].map({name: i for i, name in enumerate(names)})
    apart = {name: (i / max(len(looks) - 1, 1) - 0.5) * 0.55 for i, name in enumerate(looks)}
    at = df.assign(x=at + df["series"].map(apart))
    at.attrs = dict(df.attrs)
    return beside.draw(at, specs, looks, title="Fig. 8: retrieval by language (XM3600)")


def cells_of(cells: pd.DataFrame) -> list[tuple[panels.Panel, str]]:
    """The cells of the figure and of its scaled-up run, with what is said behind a batch size."""
    plain = panels.plain(cells)
    own = panels.multilingual(plain) & (plain["loss.kind"] == "sigmoid") & panels.scaled_up(plain)
    return [
        (fig_2.by_language(cells), ""),
        (panels.select(plain[own], ("batch_size",)), SCALED),
    ]


def languages(cells: pd.DataFrame, direction: str) -> Mapping[str, str]:
    """The metric of recall@1 in one direction by language as the paper writes it, "avg" last."""
    mean = fig_2.retrieval(cells, f"{direction}_r1")
    head, _, _ = mean.rpartition("/")
    ends = f"_{direction}_r1"
    found = {
        HEBREW.get(code, code): key
        for key in cells
        if key.startswith(head + "/") and key.endswith(ends)
        for code in [key.removeprefix(head + "/").removesuffix(ends)]
    }
    return dict(sorted(found.items())) | ({"avg": mean} if mean in cells else {})


def paper_rows(direction: str, printed: str) -> list[dict[str, Any]]:
    table = paper.reference("Table 9", panel=printed)
    size = table["x"].astype(int).map(style.short)
    scaled = table["panel"].str.contains("scaled-up")
    return points.printed(
        table,
        direction,
        series=(size + scaled.map({True: SCALED, False: ""})).tolist(),
        x=table["series"].str.removeprefix("lang="),
    )


def _order(names: Iterable[str]) -> list[str]:
    return sorted(set(names), key=lambda name: (name == "avg", name))


def _looks(series: Iterable[str]) -> dict[str, style.SeriesStyle]:
    """Batch sizes from dark to light, the scaled-up run last."""

    def size(name: str) -> tuple[bool, int]:
        digits = name.removesuffix(SCALED)
        unit = {"k": 2**10, "M": 2**20}.get(digits[-1], 1)
        return name.endswith(SCALED), int(digits.rstrip("kM")) * unit

    ordered = sorted(series, key=size)
    return {name: style.STEPS[i % len(style.STEPS)] for i, name in enumerate(ordered)}


def _axis(axes: Axes, names: list[str], values: list[Any]) -> None:
    del values
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=style.SMALL)
    axes.tick_params(axis="x", length=0, pad=1)
    axes.set_xlim(-0.8, len(names) - 0.2)
    axes.set_ylim(bottom=0)


fig_8 = Plot("fig_8", data, draw)
