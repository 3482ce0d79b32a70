"""study run glyphs-lr

Learning rate x batch size x loss. It determines RATES and SCRATCH_RATES in
`sweeps.grids.glyphs.recipe`: for each loss, the factor with the best mean accuracy on the
validation font over the batch sizes. The seed is used nowhere else.
"""

from __future__ import annotations

from sweeps.grids.glyphs.recipe import (
    LOSSES,
    SIGLIP,
    SIGLIT,
    TUNING_SEED,
    glyphs_cell,
    glyphs_study,
)
from sweeps.study import Study

BATCH_SIZES = (16, 64, 256, 1024, 4096)
FACTORS = (2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2)
SCRATCH_BATCH_SIZES = (64, 1024)
SCRATCH_FACTORS = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)


def study() -> Study:
    panels = ((SIGLIT, BATCH_SIZES, FACTORS), (SIGLIP, SCRATCH_BATCH_SIZES, SCRATCH_FACTORS))
    return glyphs_study(
        name="glyphs-lr",
        question="Which learning rate suits each loss, and does it grow with the batch?",
        cells=[
            glyphs_cell(
                model=model, batch_size=batch_size, loss=loss, factor=factor, seed=TUNING_SEED
            )
            for model, batch_sizes, factors in panels
            for batch_size in batch_sizes
            for factor in factors
            for loss in LOSSES
        ],
        paper="App. C",
    )
