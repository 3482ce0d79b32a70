"""study run glyphs-examples-vs-pairs

Examples per step and pairs per example as two free axes on glyphs, three seeds: each batch is split
into groups, and an example meets only its own group. Small groups also change the prior odds, so
each point is run from b = -10 and from its own prior.
"""

from __future__ import annotations

from typing import Literal

from study.config import AllPairs, Groups, Sigmoid
from sweeps.grids.glyphs.recipe import SEEDS, glyphs_cell, glyphs_study
from sweeps.study import Study

BATCH_SIZES = (64, 256, 1024, 4096)
GROUPS = (4, 16, 64, 256, 1024, 4096)
B_INITS: tuple[float | Literal["prior"], ...] = (-10.0, "prior")


def in_groups(batch_size: int, group: int, b_init: float | Literal["prior"]) -> Sigmoid:
    """The loss of a batch in groups of this size; the whole batch is one group."""
    pairs = AllPairs() if group == batch_size else Groups(size=group)
    return Sigmoid(b_init=b_init, pairs=pairs)


def study() -> Study:
    return glyphs_study(
        name="glyphs-examples-vs-pairs",
        question="On glyphs: what makes a large batch good, its examples or its pairs?",
        cells=[
            glyphs_cell(
                batch_size=batch_size,
                loss=in_groups(batch_size, group, b_init),
                seed=seed,
            )
            for seed in SEEDS
            for batch_size in BATCH_SIZES
            for group in GROUPS
            if group <= batch_size
            for b_init in B_INITS
        ],
    )
