"""study run fig-3

SigLiT, duration x batch size (Sec. 4.1): the rows 8k and 256k of Table 8, 16 cells.
"""

from __future__ import annotations

from sweeps.grids.paper import assumptions as assumed
from sweeps.grids.paper import table_8
from sweeps.grids.paper.recipe import K, paper_study
from sweeps.study import Study


def study() -> Study:
    return paper_study(
        name="fig-3",
        question="SigLiT: how long must a run be before a large batch pays?",
        cells=[cell for cell in table_8.cells() if cell.batch_size in (8 * K, 256 * K)],
        paper="Fig. 3",
        assumptions=assumed.SIGLIT,
    )
