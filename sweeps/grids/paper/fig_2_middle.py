"""study run fig-2-middle

SigLIP from scratch at 9B examples, batch size x loss (Sec. 4.2): the 9B columns of Table 5.
"""

from __future__ import annotations

from sweeps.grids.paper import assumptions as assumed
from sweeps.grids.paper import table_5
from sweeps.grids.paper.recipe import BILLION, paper_study
from sweeps.study import Study


def study() -> Study:
    return paper_study(
        name="fig-2-middle",
        question="SigLIP from scratch: how far does quality grow with the batch?",
        cells=[cell for cell in table_5.cells() if cell.budget.examples == 9 * BILLION],
        paper="Fig. 2 middle",
        assumptions=(*assumed.SIGLIP, assumed.ODD_SIZES),
    )
