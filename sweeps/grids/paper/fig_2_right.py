"""study run fig-2-right

mSigLIP, mean retrieval over 36 languages by batch size (Sec. 4.3): the cells of Table 2.
"""

from __future__ import annotations

from sweeps.grids.paper import assumptions as assumed
from sweeps.grids.paper import table_2
from sweeps.grids.paper.recipe import paper_study
from sweeps.study import Study


def study() -> Study:
    return paper_study(
        name="fig-2-right",
        question="mSigLIP: what does a larger batch do to retrieval in 36 languages?",
        cells=table_2.cells(),
        paper="Fig. 2 right",
        assumptions=assumed.MULTILINGUAL,
    )
