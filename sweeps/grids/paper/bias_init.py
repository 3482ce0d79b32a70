"""study run bias-init

The initial bias by batch size: -10, 0, or the log-odds of a positive pair. SigLiT in the paper's
set-up at 900M examples; the cells with -10 are Table 8's.
"""

from __future__ import annotations

from typing import Literal

from study.config import Sigmoid
from sweeps.grids.paper import assumptions
from sweeps.grids.paper.recipe import MILLION, K, paper_study, siglit_cell
from sweeps.study import Study

BATCH_SIZES = (512, 2 * K, 8 * K, 32 * K, 128 * K)
B_INITS: tuple[float | Literal["prior"], ...] = (-10.0, 0.0, "prior")


def study() -> Study:
    return paper_study(
        name="bias-init",
        question="Should the bias start at -10, at 0, or at the prior log-odds of the batch size?",
        cells=[
            siglit_cell(batch_size=batch_size, budget=900 * MILLION, loss=Sigmoid(b_init=b_init))
            for batch_size in BATCH_SIZES
            for b_init in B_INITS
        ],
        assumptions=assumptions.SIGLIT,
    )
