"""Fig. 4: a pretrained image tower and its weight decay (paper Sec. 4.5).

Cells, by their fields: sigmoid, `model.image.kind` = vit and not frozen. "fine-tune" starts from a
checkpoint (`model.init`), "fine-tune w/o enc. wd" too but with `optimizer.image.decay_times` = 0;
"from-scratch" has no `model.init`. Apart from these and `optimizer.image` they differ in nothing.
Curves along the runs: zero-shot above, few-shot below.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import paper
from analysis.figures.base import Inputs, Plot
from analysis.figures.plot import points, style
from analysis.figures.plot import side_by_side as beside
from analysis.figures.plot.side_by_side import PanelSpec
from analysis.select import panels
from analysis.select.fields import with_fields

SCRATCH, TUNED, UNDECAYED = "from-scratch", "fine-tune", "fine-tune w/o enc. wd"
STYLES = {
    SCRATCH: style.SeriesStyle(colour="#111111", marker="s", line=(0, (4, 1.5))),
    TUNED: style.SeriesStyle(colour="#cf5318", marker="^", line=(0, (5, 1.2, 1, 1.2))),
    UNDECAYED: style.SeriesStyle(colour="#0b3c7d", marker="o"),
}
SAYS = "paper: no numbers but 71 % at the end w/o enc. wd"
NOTE = (
    "the paper prints no numbers for the curves; it says that with decay the 10-shot accuracy ends "
    "barely above from-scratch, and that without it the 10-shot curve is flat and 0-shot reaches "
    "71 %"
)
SPECS = [
    PanelSpec(name="zero_shot", title="0-shot", label="ImageNet\n0-shot (%)", says=SAYS),
    PanelSpec(
        name="few_shot",
        title="few-shot (the paper: 10-shot)",
        label="ImageNet\n10-shot (%)",
        says="paper: no numbers",
    ),
]


def data(inputs: Inputs) -> pd.DataFrame:
    """The curves, see `points.curves`, and the one number of the paper's text."""
    panel = _panel(inputs.cells)
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    if len(panel.cells):
        done = panel.done.assign(series=_series(panel.done))
        metrics = {
            "zero_shot": inputs.quality_of(done),
            "few_shot": _few_shot(done),
        }
        for name, metric in metrics.items():
            rows += points.curves(inputs.rows, done, name, metric)
            missing += points.unmeasured(panel, metric)
        there = set(_series(panel.cells))
        missing += [f"no cell {name}" for name in STYLES if name not in there]
    table = paper.reference("Fig. 4")
    x = table["x"].astype(int) * 1_000_000
    rows += points.printed(table, "zero_shot", series=[UNDECAYED], x=x)
    title = points.short_title(panel) if len(panel.cells) else ""
    return points.frame(rows, panels=[panel], missing=missing, notes=[NOTE], title=title)


def draw(df: pd.DataFrame) -> Figure:
    specs = [beside.along_runs(spec, axis=_axis) for spec in SPECS]
    title = "Fig. 4: a pretrained image tower and its weight decay"
    return beside.draw(df, specs, STYLES, title=title, legend_columns=2)


def _panel(cells: pd.DataFrame) -> panels.Panel:
    cells = with_fields(cells, ("model.init",))
    frozen = panels.numeric(cells, "optimizer.image.frozen") > 0
    own = (cells["loss.kind"] == "sigmoid") & (cells["model.image.kind"] == "vit") & ~frozen
    cells = cells[own & ~panels.multilingual(cells)]
    started = cells["model.init"].dropna()
    if started.empty:
        return panels.Panel(cells=cells[:0], axes=("series",))
    cells = cells.assign(series=_series(cells))
    panel = panels.select(cells, ("series",), free=("model.init", "optimizer.image."))
    tuned = panel.cells["model.init"].notna().any()
    return panel if tuned else panels.Panel(cells=cells[:0], axes=("series",))


def _series(cells: pd.DataFrame) -> pd.Series:
    decay = panels.numeric(cells, "optimizer.image.decay_times", otherwise=1.0)
    names = decay.map(lambda times: UNDECAYED if times == 0 else TUNED)
    return names.where(cells["model.init"].notna(), SCRATCH)


def _few_shot(cells: pd.DataFrame) -> str:
    keys = [k for k in cells if k.startswith("eval/few_shot/") and k.endswith("/top1")]
    imagenet = paper.find_metric(keys, "ImageNet", kind="few_shot")
    return imagenet or min(keys, default="eval/few_shot/imagenet/val/top1")


def _axis(axes: Axes, values: list[Any]) -> None:
    """The paper's ticks, 1, 2, 4, 8, 16 and 24 of 24 parts of the run, whatever its length."""
    end = max(values)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xlim(min(end / 24, min(values)) / 1.2, end * 1.2)
    style.examples_axis(axes, [end * part / 24 for part in (1, 2, 4, 8, 16, 24)])
    axes.set_ylim(bottom=0)


fig_4 = Plot("fig_4", data, draw)
