"""study run examples-vs-pairs

Examples per step and pairs per example as two free axes, which only the sigmoid loss can separate:
SigLiT in the paper's set-up at 900M examples, with each batch split into groups. The whole batch as
one group, with b = -10, is Table 8's cell.

Small groups also change the prior odds (b = -10 fits about 22 thousand pairs per example), so each
point is run from b = -10 and from its own prior.
"""

from __future__ import annotations

from typing import Literal

from study.config import AllPairs, Groups, Sigmoid
from sweeps.grids.paper import assumptions
from sweeps.grids.paper.recipe import MILLION, K, paper_study, siglit_cell
from sweeps.study import Study

BATCH_SIZES = (2 * K, 8 * K, 32 * K, 128 * K)
GROUPS = (128, 512, 2 * K, 8 * K, 32 * K, 128 * K)
B_INITS: tuple[float | Literal["prior"], ...] = (-10.0, "prior")


def study() -> Study:
    return paper_study(
        name="examples-vs-pairs",
        question="What makes a large batch good: its examples or its pairs?",
        cells=[
            siglit_cell(
                batch_size=batch_size,
                budget=900 * MILLION,
                loss=Sigmoid(
                    b_init=b_init,
                    pairs=AllPairs() if group == batch_size else Groups(size=group),
                ),
            )
            for batch_size in BATCH_SIZES
            for group in GROUPS
            if group <= batch_size
            for b_init in B_INITS
        ],
        assumptions=assumptions.SIGLIT,
    )
