"""study run table-2

mSigLIP: 100 languages, 30B examples, five batch sizes, sigmoid only (Sec. 4.3). Fig. 2 right draws
the same cells (`fig-2-right`).
"""

from __future__ import annotations

from study.config import Cell
from sweeps.grids.paper import assumptions
from sweeps.grids.paper.recipe import (
    BILLION,
    MSIGLIP,
    MULTILINGUAL,
    WEBLI_100,
    K,
    paper_study,
    siglip_cell,
)
from sweeps.study import Study

BATCH_SIZES = (16 * K, 32 * K, 64 * K, 128 * K, 240 * K)


def cells() -> list[Cell]:
    return [
        siglip_cell(
            batch_size=batch_size,
            budget=30 * BILLION,
            model=MSIGLIP,
            data=WEBLI_100,
            evals=MULTILINGUAL,
        )
        for batch_size in BATCH_SIZES
    ]


def study() -> Study:
    return paper_study(
        name="table-2",
        question="Which batch size suits training on a hundred languages?",
        cells=cells(),
        paper="Table 2",
        assumptions=assumptions.MULTILINGUAL,
    )


def fig_2_right() -> Study:
    """study run fig-2-right: mean retrieval over 36 languages."""
    return paper_study(
        name="fig-2-right",
        question="mSigLIP: what does a larger batch do to retrieval in 36 languages?",
        cells=cells(),
        paper="Fig. 2 right",
        assumptions=assumptions.MULTILINGUAL,
    )
