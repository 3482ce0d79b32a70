"""study run glyphs-scratch

SigLIP on glyphs, both towers from scratch, batch size x loss, three seeds: Fig. 2 middle.
"""

from __future__ import annotations

from sweeps.grids.glyphs.recipe import LOSSES, MIDDLE, SEEDS, SIGLIP, glyphs_cell, glyphs_study
from sweeps.study import Study

BATCH_SIZES = (16, 64, 256, 1024, 4096)


def study() -> Study:
    return glyphs_study(
        name="glyphs-scratch",
        question="From scratch on glyphs: which batch size, with which loss?",
        cells=[
            glyphs_cell(
                batch_size=batch_size, loss=loss, seed=seed, model=SIGLIP, examples=2 * MIDDLE
            )
            for seed in SEEDS
            for batch_size in BATCH_SIZES
            for loss in LOSSES
        ],
        paper="Fig. 2 middle, Table 5",
    )
