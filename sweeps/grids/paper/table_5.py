"""study run table-5

SigLIP from scratch, batch size x budget x loss (Sec. 4.2, App. B): 26 cells. Fig. 2 middle is its
9B column (`fig-2-middle`).
"""

from __future__ import annotations

from study.config import Cell
from sweeps.grids.paper import assumptions
from sweeps.grids.paper.recipe import BILLION, LOSSES, K, paper_study, siglip_cell
from sweeps.study import Study

BATCH_SIZES = {
    3 * BILLION: (512, 1 * K, 2 * K, 4 * K, 8 * K, 32 * K, 96 * K),
    9 * BILLION: (4 * K, 8 * K, 16 * K, 32 * K, 96 * K, 300 * K),
}
ASSUMPTIONS = (*assumptions.SIGLIP, assumptions.ODD_SIZES)


def cells() -> list[Cell]:
    return [
        siglip_cell(batch_size=batch_size, budget=examples, loss=loss)
        for examples, batch_sizes in BATCH_SIZES.items()
        for batch_size in batch_sizes
        for loss in LOSSES
    ]


def study() -> Study:
    return paper_study(
        name="table-5",
        question="SigLIP from scratch: which batch size, with which loss, at which budget?",
        cells=cells(),
        paper="Table 5",
        assumptions=ASSUMPTIONS,
    )


def fig_2_middle() -> Study:
    """study run fig-2-middle: the 9B column, 12 cells."""
    return paper_study(
        name="fig-2-middle",
        question="SigLIP from scratch: how far does quality grow with the batch?",
        cells=[cell for cell in cells() if cell.budget.examples == 9 * BILLION],
        paper="Fig. 2 middle",
        assumptions=ASSUMPTIONS,
    )
