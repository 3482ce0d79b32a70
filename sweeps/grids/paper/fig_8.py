"""study run fig-8

mSigLIP, recall by language and batch size as a figure (App. D): the cells of Table 9.
"""

from __future__ import annotations

from sweeps.grids.paper import assumptions as assumed
from sweeps.grids.paper import table_9
from sweeps.grids.paper.recipe import paper_study
from sweeps.study import Study


def study() -> Study:
    return paper_study(
        name="fig-8",
        question="mSigLIP: which languages gain or lose with the batch?",
        cells=table_9.cells(),
        paper="Fig. 8",
        assumptions=(*assumed.MULTILINGUAL, table_9.SCALED),
    )
