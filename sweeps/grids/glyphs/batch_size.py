"""study run glyphs-batch-size

SigLiT on glyphs, batch size x loss x budget, three seeds: Fig. 2 left, and through its budgets
Fig. 3: how long a run must be before a large batch pays.

A batch size is judged where its runs have 500 steps or more: up to 256 at MIDDLE, 1,024 at LONG and
4,096 at LONGEST, which is held out where the others predict it. 16,384 would have 256 steps there
and take an hour; at the shorter budgets it shows where too few steps begin.
"""

from __future__ import annotations

from study.config import Cell
from sweeps.grids.glyphs.recipe import (
    LONG,
    LONGEST,
    LOSSES,
    MIDDLE,
    SEEDS,
    SHORT,
    glyphs_cell,
    glyphs_study,
)
from sweeps.study import Study

BATCH_SIZES: dict[int, tuple[int, ...]] = {
    SHORT: (16, 64, 256, 1024, 4096, 16_384),
    MIDDLE: (16, 64, 256, 1024, 4096, 16_384),
    LONG: (16, 64, 256, 1024, 4096, 16_384),
    LONGEST: (16, 64, 256, 1024, 4096),
}


def cells() -> list[Cell]:
    return [
        glyphs_cell(batch_size=batch_size, loss=loss, seed=seed, examples=examples)
        for seed in SEEDS
        for examples, batch_sizes in BATCH_SIZES.items()
        for batch_size in batch_sizes
        for loss in LOSSES
    ]


def study() -> Study:
    return glyphs_study(
        name="glyphs-batch-size",
        question="SigLiT on glyphs: which batch size, with which loss, at which budget?",
        cells=cells(),
        paper="Fig. 2 left, Fig. 3, Table 8",
    )
