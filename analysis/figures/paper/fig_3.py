"""Fig. 3: training duration and batch size, SigLiT (paper Sec. 4.1).

Cells, by their fields: those of Fig. 2 left (`model.image.kind` = cached, sigmoid with all pairs
and softmax, clean data) at every `budget.examples`, of two batch sizes: 8192 and 262144 as in the
paper where both are there, else as `panels.small_and_large` has it.
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

SIZES = (8192, 262_144)
STYLES = {
    "sigmoid, large batch": style.STYLES["sigmoid"],
    "softmax, large batch": style.STYLES["softmax"],
    "sigmoid, small batch": style.STYLES["sigmoid, small batch"],
    "softmax, small batch": style.STYLES["softmax, small batch"],
}


def data(inputs: Inputs) -> pd.DataFrame:
    """The points, see `points`; x is examples seen."""
    found = inputs.chosen(panels.by_budget, image="cached")
    rows: list[dict[str, Any]] = []
    notes, missing, used = [], [], []
    sizes = _sizes(found)
    if len(sizes) == 2:
        names = dict(zip(sizes, ("small", "large"), strict=True))
        parts = [panel.cells[panel.cells["batch_size"].isin(sizes)] for panel in found.values()]
        used = [
            panels.Panel(cells=part, axes=panels.AXES_BATCH, notes=panel.notes)
            for part, panel in zip(parts, found.values(), strict=True)
        ]
        cells = pd.concat([panel.done for panel in used])
        metric = inputs.quality_of(cells)
        batch = cells["batch_size"].map(names)
        series = cells["loss.kind"] + ", " + batch + " batch"
        rows = points.ours(
            cells.assign(series=series, x=cells["budget.examples"]), "duration", metric
        )
        missing = [name for panel in used for name in points.unmeasured(panel, metric)]
        missing += [
            f"no cell of B = {size} {loss} at {style.count(budget)} examples"
            for budget, panel in found.items()
            for size in sizes
            for loss in ("sigmoid", "softmax")
            if not _has(panel.cells, size, loss)
        ]
        notes = [f"ours: small batch {style.short(sizes[0])}, large batch {style.short(sizes[1])}"]
    table = paper.reference("Fig. 3")
    series = table["series"].str.lower().str.replace("batch 8k", "small batch")
    rows += points.printed(
        table,
        "duration",
        series=series.str.replace("batch 262k", "large batch").tolist(),
        x=table["x"].astype(int) * 1_000_000,
    )
    notes.append("the paper's: small batch 8k, large batch 256k (printed as 262k)")
    return points.frame(rows, panels=used, missing=missing, notes=notes, title=_title(used))


def draw(df: pd.DataFrame) -> Figure:
    spec = PanelSpec(
        name="duration",
        title="SigLiT",
        label="ImageNet\n0-shot (%)",
        axis=style.examples_axis,
        height=2.4,
    )
    title = "Fig. 3: training duration and batch size"
    return beside.draw(df, [spec], STYLES, title=title, legend_columns=2)


def _sizes(found: dict[int, panels.Panel]) -> tuple[int, ...]:
    """The two batch sizes that are drawn; none where no two have two budgets."""
    sizes = [{int(size) for size in panel.cells["batch_size"]} for panel in found.values()]
    if sum(set(SIZES) <= own for own in sizes) > 1:
        return SIZES
    return (panels.small_and_large(sizes) or ()) if len(sizes) > 1 else ()


def _has(cells: pd.DataFrame, size: int, loss: str) -> bool:
    return bool(((cells["batch_size"] == size) & (cells["loss.kind"] == loss)).any())


def _title(used: list[panels.Panel]) -> str:
    whole = [panel for panel in used if len(panel.cells)]
    return str(whole[-1].cells["data.dataset"].iloc[0]) if whole else ""


fig_3 = Plot("fig_3", data, draw)
