"""Fig. 4: a pretrained image tower and its weight decay (paper Sec. 4.5).

Cells, by their fields: sigmoid, `model.image.kind` = vit and not frozen. "fine-tune" starts from a
checkpoint (`model.init`), "fine-tune w/o enc. wd" too but with `optimizer.image.wd_mult` = 0;
"from-scratch" has no `model.init`. Apart from these and `optimizer.image` they differ in nothing.
Curves along the runs: zero-shot above, few-shot below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import points, style
from analysis.figures.plot.layout import StudyFigure
from analysis.figures.plot.points import Row
from analysis.figures.plot.side_by_side import PanelSpec, draw_panels
from analysis.figures.plot.style import SeriesStyle
from analysis.select import panels
from analysis.select.benchmarks import find_metric
from analysis.select.fields import with_fields

SCRATCH, TUNED, UNDECAYED = "from-scratch", "fine-tune", "fine-tune w/o enc. wd"
SERIES = {
    SCRATCH: SeriesStyle(colour=style.BLACK, marker="s", line=style.DASHED),
    TUNED: SeriesStyle(colour=style.ROSE, marker="^", line=style.DASH_DOT),
    UNDECAYED: SeriesStyle(colour=style.GREEN, marker="o"),
}
NOTE = (
    "the paper prints no numbers for the curves; it says that with decay the 10-shot accuracy ends "
    "barely above from-scratch, and that without it the 10-shot curve is flat and 0-shot reaches "
    "71 %"
)


def data(inputs: Inputs) -> pd.DataFrame:
    """The curves, see `points.curves`. The paper's one number, 71 %, is in the caption."""
    panel = _panel(inputs.cells)
    rows: list[Row] = []
    missing: list[str] = []
    if len(panel.cells):
        done = panel.done.assign(series=_series(panel.done))
        few_shot = [k for k in done if k.startswith("eval/few_shot/") and k.endswith("/top1")]
        metrics = {
            "zero_shot": inputs.quality_of(done),
            "few_shot": find_metric(few_shot, "ImageNet", kind="few_shot")
            or min(few_shot, default="eval/few_shot/imagenet/val/top1"),
        }
        for name, metric in metrics.items():
            rows += points.curves(inputs.rows, done, name, metric)
            missing += points.without_metric(panel, metric)
        missing += [f"no cell {name}" for name in SERIES if name not in set(_series(panel.cells))]
    title = points.describe_panel(panel)
    return points.make_table(rows, panels=[panel], missing=missing, notes=[NOTE], title=title)


def draw(df: pd.DataFrame) -> StudyFigure:
    specs = [
        PanelSpec(name=name, title=title, label=label, axis=_axis, curves=True)
        for name, title, label in (
            ("zero_shot", "0-shot", "ImageNet\n0-shot (%)"),
            ("few_shot", "few-shot (the paper: 10-shot)", "ImageNet\n10-shot (%)"),
        )
    ]
    title = "Fig. 4: a pretrained image tower and its weight decay"
    return draw_panels(df, specs, SERIES, title=title, height=2.0)


def _panel(cells: pd.DataFrame) -> panels.Panel:
    """The cells of the figure; none where no cell starts from a checkpoint."""
    cells = with_fields(cells, ("model.init",))
    frozen = panels.numeric(cells, "optimizer.image.frozen") > 0
    own = (cells["loss.kind"] == "sigmoid") & (cells["model.image.kind"] == "vit") & ~frozen
    cells = cells[own & ~panels.multilingual(cells)]
    cells = cells.assign(series=_series(cells))
    panel = panels.select(cells, ("series",), free=("model.init", "optimizer.image."))
    if panel.cells["model.init"].notna().any():
        return panel
    return panels.Panel(cells=cells[:0], axes=("series",))


def _series(cells: pd.DataFrame) -> pd.Series:
    decay = panels.numeric(cells, "optimizer.image.wd_mult", otherwise=1.0)
    names = decay.map(lambda times: UNDECAYED if times == 0 else TUNED)
    return names.where(cells["model.init"].notna(), SCRATCH)


def _axis(axes: Axes, values: Sequence[Any]) -> None:
    """Logarithmic, as in the paper."""
    style.plain_log(axes, "x")
    axes.set_xlim(min(values) / 1.1, max(values) * 1.1)
    axes.set_xlabel("examples seen")
    axes.set_ylim(bottom=0)


fig_4 = Plot("fig_4", data, draw)
