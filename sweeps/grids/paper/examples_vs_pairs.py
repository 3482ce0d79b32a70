"""study run examples-vs-pairs

Examples per step and pairs per example as two axes, which the sigmoid loss alone can part: SigLiT
in the paper's set-up at 900M examples, each batch split into groups. The whole batch as one group
with b = -10 is Table 8's cell.

Small groups change the prior odds too (b = -10 fits about 22 thousand pairs an example), so
each point is run from -10 and from its own prior.
"""

from __future__ import annotations

from typing import Literal

from study.config import AllPairs, Cell, Groups, Sigmoid
from sweeps.grids.paper import assumptions as assumed
from sweeps.grids.paper.recipe import MILLION, K, paper_study, siglit_cell
from sweeps.study import Study

BATCH_SIZES = (2 * K, 8 * K, 32 * K, 128 * K)
GROUPS = (128, 512, 2 * K, 8 * K, 32 * K, 128 * K)
STARTS: tuple[float | Literal["prior"], ...] = (-10.0, "prior")


def cell(*, batch_size: int, group: int, b_init: float | Literal["prior"]) -> Cell:
    pairs = AllPairs() if group == batch_size else Groups(size=group)
    return siglit_cell(
        batch_size=batch_size, examples=900 * MILLION, loss=Sigmoid(b_init=b_init, pairs=pairs)
    )


def study() -> Study:
    return paper_study(
        name="examples-vs-pairs",
        question="What makes a large batch good: its examples or its pairs?",
        cells=[
            cell(batch_size=batch_size, group=group, b_init=b_init)
            for batch_size in BATCH_SIZES
            for group in GROUPS
            if group <= batch_size
            for b_init in STARTS
        ],
        assumptions=assumed.SIGLIT,
    )
