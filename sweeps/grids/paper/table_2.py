"""study run table-2

mSigLIP: 100 languages, 30B examples, five batch sizes, sigmoid alone (Sec. 4.3).
"""

from __future__ import annotations

from study.config import Cell
from sweeps.grids.paper import assumptions as assumed
from sweeps.grids.paper.recipe import K, msiglip_cell, paper_study
from sweeps.study import Study

BATCH_SIZES = (16 * K, 32 * K, 64 * K, 128 * K, 240 * K)


def cells() -> list[Cell]:
    return [msiglip_cell(batch_size=batch_size) for batch_size in BATCH_SIZES]


def study() -> Study:
    return paper_study(
        name="table-2",
        question="Which batch size serves a hundred languages?",
        cells=cells(),
        paper="Table 2",
        assumptions=assumed.MULTILINGUAL,
    )
