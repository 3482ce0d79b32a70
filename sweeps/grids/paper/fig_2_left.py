"""study run fig-2-left

SigLiT at 18B examples, batch size x loss (Sec. 4.1): the 18B columns of Table 8, 17 cells.
"""

from __future__ import annotations

from sweeps.grids.paper import assumptions as assumed
from sweeps.grids.paper import table_8
from sweeps.grids.paper.recipe import paper_study
from sweeps.study import Study


def study() -> Study:
    return paper_study(
        name="fig-2-left",
        question="SigLiT: how far does quality grow with the batch?",
        cells=table_8.longest(),
        paper="Fig. 2 left",
        assumptions=(*assumed.SIGLIT, assumed.MILLION),
    )
