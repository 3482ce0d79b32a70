"""study run lr-by-batch

Learning rate x batch size x loss: does the best rate move with the batch? SigLiT in the paper's
set-up at 900M examples; the cells at 0.001 are Table 8's.
"""

from __future__ import annotations

import dataclasses

from sweeps.grids.paper import assumptions
from sweeps.grids.paper.recipe import ADAFACTOR, LOSSES, MILLION, K, paper_study, siglit_cell
from sweeps.study import Study

BATCH_SIZES = (512, 2 * K, 8 * K, 32 * K, 128 * K)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def study() -> Study:
    return paper_study(
        name="lr-by-batch",
        question="Does the best learning rate grow with the batch size, alike for both losses?",
        cells=[
            siglit_cell(
                batch_size=batch_size,
                budget=900 * MILLION,
                loss=loss,
                optimizer=dataclasses.replace(ADAFACTOR, learning_rate=rate),
            )
            for batch_size in BATCH_SIZES
            for rate in RATES
            for loss in LOSSES
        ],
        assumptions=assumptions.SIGLIT,
    )
