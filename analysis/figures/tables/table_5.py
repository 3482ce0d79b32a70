"""Table 5: SigLIP from scratch by batch size, budget and loss (paper Sec. 4.2, App. B).

Cells, by their fields: `model.image.kind` = vit, nothing from a checkpoint, clean data, no
multilingual evaluation; sigmoid with all pairs and softmax at each `budget.examples`.
"""

from __future__ import annotations

from analysis.figures.base import Inputs
from analysis.figures.tables import budgets
from analysis.figures.tables.table import Table


def table(inputs: Inputs) -> Table:
    title = "Table 5: SigLIP from scratch, ImageNet 0-shot (%) by batch size and examples seen"
    return budgets.table(inputs, name="Table 5", image="vit", title=title)
