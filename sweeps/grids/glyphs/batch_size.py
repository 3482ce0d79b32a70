"""study run glyphs-batch-size

SigLiT on glyphs, batch size x loss x budget, three seeds: Fig. 2 left, and through its three
budgets Fig. 3: how long a run must be before a large batch pays.

65,536 has only two budgets: at the longest, its 16 steps would take as long as all other cells.
"""

from __future__ import annotations

from study.config import Cell
from sweeps.grids.glyphs.recipe import LONG, LOSSES, MIDDLE, SEEDS, SHORT, glyphs_cell, glyphs_study
from sweeps.study import Study

BATCH_SIZES = (16, 64, 256, 1024, 4096, 16_384, 65_536)
MAX_PAIRS = 2 * 10**10  # per cell


def cells() -> list[Cell]:
    return [
        glyphs_cell(batch_size=batch_size, loss=loss, seed=seed, examples=examples)
        for seed in SEEDS
        for examples in (SHORT, MIDDLE, LONG)
        for batch_size in BATCH_SIZES
        if examples * batch_size < MAX_PAIRS
        for loss in LOSSES
    ]


def study() -> Study:
    return glyphs_study(
        name="glyphs-batch-size",
        question="SigLiT on glyphs: which batch size, with which loss, at which budget?",
        cells=cells(),
        paper="Fig. 2 left, Fig. 3, Table 8",
    )
