"""Table 8: SigLiT by batch size, budget and loss (paper Sec. 4.1, App. A; Figs. 2 left and 3).

Cells, by their fields: `model.image.kind` = cached, clean data; sigmoid with all pairs and softmax
at each `budget.examples`.
"""

from __future__ import annotations

from analysis.figures.base import Inputs
from analysis.figures.tables import budgets
from analysis.figures.tables.table import Table


def table(inputs: Inputs) -> Table:
    title = "Table 8: SigLiT, ImageNet 0-shot (%) by batch size and examples seen"
    return budgets.table(inputs, name="Table 8", image="cached", title=title)
