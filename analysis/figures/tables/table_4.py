"""Table 4: initial bias and temperature (paper Sec. 4.9).

Cells, by their fields: sigmoid with all pairs, `model.image.kind` = vit, that differ in
`loss.b_init` and `loss.t_init` and nothing else; at least two pairs of values.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.figures.base import Inputs
from analysis.figures.plot import points
from analysis.figures.tables.table import Labels, PaperTable, make_table, our_means, paper_rows
from analysis.paper.reference import reference
from analysis.select import panels
from analysis.select.benchmarks import benchmark
from analysis.select.fields import with_fields

BENCHMARKS = ["ImageNet", "Oxford-IIIT Pet", "CIFAR-100"]
INITIAL = ("loss.b_init", "loss.t_init")
ORDER = [
    ("n/a", "log 10"), ("-10", "log 10"), ("-10", "log 1"), ("0", "log 10"), ("0", "log 1")
]  # fmt: skip


def data(inputs: Inputs) -> pd.DataFrame:
    rows = paper_rows(
        reference("Table 4"),
        row=lambda entry: (entry["x"], entry["series"].removeprefix("t_prime_init=")),
        column=lambda entry: entry["metric"].removesuffix(" 0-shot accuracy"),
    )
    cells = with_fields(inputs.cells, INITIAL)
    own = (cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all")
    panel = panels.select(cells[own & (cells["model.image.kind"] == "vit")], INITIAL)
    missing: list[str] = []
    used = []
    if len(set(_initial_values(panel.cells))) > 1:
        used = [panel]
        done = panel.done.assign(initial=_initial_values(panel.done))
        for column in BENCHMARKS:
            metric = inputs.quality_of(done, column)
            if column != "ImageNet" and benchmark(metric) != column:
                continue
            rows += [
                mean | {"row": values, "column": column}
                for values, mean in our_means(done, ["initial"], metric, inputs.read_items).items()
            ]
            missing += points.without_metric(panel, metric)
    return make_table(
        rows,
        title="Table 4: initial bias and temperature, 0-shot (%) at 8k and 900M examples",
        head=("b", "t'"),
        order=lambda labels: ORDER.index(labels) if labels in ORDER else len(ORDER),
        column_order=BENCHMARKS.index,
        panels=used,
        missing=missing,
    )


def _initial_values(cells: pd.DataFrame) -> list[Labels]:
    """As the paper's table writes them; a bias may be absent, or "prior"."""

    def bias(value: Any) -> str:
        if value is None or value != value:
            return "n/a"
        return value if isinstance(value, str) else f"{value:g}"

    values = zip(*(cells[field] for field in INITIAL), strict=True)
    return [(bias(b), f"log {t:g}") for b, t in values]


table_4 = PaperTable("table_4", data)
