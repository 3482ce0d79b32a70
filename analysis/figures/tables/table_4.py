"""Table 4: initial bias and temperature (paper Sec. 4.9).

Cells, by their fields: sigmoid with all pairs, `model.image.kind` = vit, that differ in
`loss.b_init` and `loss.t_init` and nothing else; at least two starts.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis import paper
from analysis.figures.base import Inputs
from analysis.figures.plot import points
from analysis.figures.tables import table as tables
from analysis.figures.tables.budgets import sources
from analysis.figures.tables.table import Entry, Labels, Table
from analysis.select import panels
from analysis.select.fields import with_fields
from analysis.stats.intervals import by_group, pooled_means

BENCHMARKS = {
    "ImageNet": "ImageNet 0-shot accuracy",
    "Oxford-IIIT Pet": "Oxford-IIIT Pet 0-shot accuracy",
    "CIFAR-100": "CIFAR-100 0-shot accuracy",
}
START = ("loss.b_init", "loss.t_init")
ORDER = [
    ("n/a", "log 10"), ("-10", "log 10"), ("-10", "log 1"), ("0", "log 10"), ("0", "log 1")
]  # fmt: skip


def table(inputs: Inputs) -> Table:
    names = {printed: column for column, printed in BENCHMARKS.items()}
    entries = [
        Entry(
            row=(row["x"], row["series"].removeprefix("t_prime_init=")),
            column=names[row["metric"]],
            source="paper",
            value=row["value"],
        )
        for _, row in paper.reference("Table 4").iterrows()
    ]
    cells = with_fields(inputs.cells, START)
    own = (cells["loss.kind"] == "sigmoid") & (cells["loss.pairs.kind"] == "all")
    panel = panels.select(cells[own & (cells["model.image.kind"] == "vit")], START)
    missing: list[str] = []
    used = len(set(_starts(panel.cells))) > 1
    if used:
        done = panel.done.assign(start=_starts(panel.done))
        for column in BENCHMARKS:
            metric = inputs.quality_of(done, column)
            if column != "ImageNet" and paper.benchmark(metric) != column:
                continue
            means = pooled_means(by_group(done, ["start"], metric))
            entries += [
                tables.ours(start, column, means.mean(start), n)
                for start, n in means.counts.items()
            ]
            missing += points.unmeasured(panel, metric)
        missing += panel.missing()
    return tables.build(
        title="Table 4: initial bias and temperature, 0-shot (%) at 8k and 900M examples",
        head=("b", "t'"),
        entries=entries,
        rows=ORDER,
        columns=list(BENCHMARKS),
        missing=missing,
        provenance=sources([panel] if used else []),
    )


def _starts(cells: pd.DataFrame) -> list[Labels]:
    return [_start(b, t) for b, t in zip(cells[START[0]], cells[START[1]], strict=True)]


def _start(b: Any, t: float) -> Labels:
    """As the paper's table writes them; a bias may be absent, or "prior"."""
    absent = b is None or b != b
    bias = "n/a" if absent else b if isinstance(b, str) else f"{b:g}"
    return bias, f"log {t:g}"
