"""Fig. 3: training duration and batch size, SigLiT (paper Sec. 4.1).

Cells, by their fields: those of Fig. 2 left (`model.image.kind` = cached, sigmoid with all pairs
and softmax, clean data) at every `budget.examples`, of two batch sizes: 8192 and 262144 as in the
paper where two budgets have both, else those that the claims compare, see `select.duration`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pandas as pd

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.side_by_side import PanelSpec, draw_panels
from analysis.figures.plot.style import LOSSES, STYLES
from analysis.paper.reference import reference
from analysis.select import panels
from analysis.select.duration import long_and_short

SIZES = (8192, 262_144)
LOOKS = {  # by loss and whether the batch size is the large one of the two
    ("sigmoid", True): STYLES["sigmoid"],
    ("softmax", True): STYLES["softmax"],
    ("sigmoid", False): STYLES["sigmoid, small batch"],
    ("softmax", False): STYLES["softmax, small batch"],
}
PANEL = PanelSpec(
    name="duration",
    title="SigLiT",
    label="ImageNet\n0-shot (%)",
    axis=style.examples_axis,
)


def data(inputs: Inputs) -> pd.DataFrame:
    """The points, see `points`; x is examples seen."""
    budgets = inputs.select(panels.by_budget, image="cached")
    rows: list[Row] = []
    notes, missing, used, title = [], [], [], ""
    if sizes := _two_sizes(inputs, budgets):
        used = [
            panels.Panel(
                cells=panel.cells[panel.cells["batch_size"].isin(sizes)],
                axes=panels.AXES_BATCH,
                notes=panel.notes,
            )
            for panel in budgets.values()
        ]
        done = pd.concat([panel.done for panel in used])
        metric = inputs.quality_of(done)
        names = done["loss.kind"] + ", B = " + done["batch_size"].map(style.format_size)
        done = done.assign(series=names, x=done["budget.examples"])
        rows = points.our_points(done, "duration", metric, inputs.read_items)
        missing = [name for panel in used for name in points.without_metric(panel, metric)]
        for budget, panel in budgets.items():
            present = set(zip(panel.cells["batch_size"], panel.cells["loss.kind"], strict=True))
            missing += [
                f"no cell of B = {size} {loss} at {style.format_count(budget)} examples"
                for size, loss in product(sizes, LOSSES)
                if (size, loss) not in present
            ]
        notes = [f"ours: {_describe(sizes, list(budgets))}"]
        whole = [panel.cells for panel in used if len(panel.cells)]
        title = str(whole[-1]["data.dataset"].iloc[0]) if whole else ""
    table = reference("Fig. 3")
    series = table["series"].str.lower().str.replace("batch 8k", "B = 8k")
    series = series.str.replace("batch 262k", "B = 256k")  # which the paper prints in its tables
    x = table["x"].astype(int) * 1_000_000
    rows += points.paper_points(table, "duration", series=series, x=x)
    return points.make_table(rows, panels=used, missing=missing, notes=notes, title=title)


def draw(df: pd.DataFrame) -> StudyFigure:
    styles = {}
    for source in ("ours", "paper"):
        series = [name.split(", B = ") for name in set(df.loc[df["source"] == source, "series"])]
        large = max((style.parse_size(size) for _, size in series), default=0)
        for loss, size in sorted(series, key=lambda one: (-style.parse_size(one[1]), one[0])):
            styles[f"{loss}, B = {size}"] = LOOKS[loss, style.parse_size(size) == large]
    title = "Fig. 3: training duration and batch size"
    return draw_panels(df, [PANEL], styles, title=title, height=2.2)


def _two_sizes(inputs: Inputs, budgets: Mapping[int, panels.Panel]) -> tuple[int, ...]:
    """The two batch sizes that are drawn; none where no two budgets have them."""
    cells = [panel.cells for panel in budgets.values()]
    if sum(set(SIZES) <= set(own["batch_size"]) for own in cells) > 1:
        return SIZES
    both = long_and_short(budgets, inputs.quality_of(pd.concat(cells))) if cells else None
    return (both.small, both.large) if both else ()


def _describe(sizes: tuple[int, ...], budgets: list[int]) -> str:
    """The batch sizes with the steps of each budget."""
    return ", ".join(
        f"{name} batch {style.format_size(size)} "
        f"({', '.join(f'{budget // size:,}' for budget in sorted(budgets))} steps)"
        for name, size in zip(("small", "large"), sizes, strict=True)
    )


fig_3 = Plot("fig_3", data, draw)
