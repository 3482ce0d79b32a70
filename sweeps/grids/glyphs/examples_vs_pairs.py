"""study run glyphs-examples-vs-pairs

Examples per step and pairs per example as two free axes on glyphs, three seeds: each batch is split
into groups, and an example meets only its own group. Small groups also change the prior odds, so
each point is run from b = -10 and from its own prior.

At a fixed number of examples, larger steps are fewer. So there are two arms, which share the cells
at B = 1,024: 1,048,576 examples at each batch size, and 1,024 steps at each. B = 4,096 has only 256
steps in the first arm and is in the second alone, with two sizes of groups: 4,194,304 examples take
one and a half minutes, and five with the whole batch. Quality is smooth in the logarithm of the
group, so a factor of four between groups is enough.
"""

from __future__ import annotations

from typing import Literal

from study.config import AllPairs, Cell, Groups, Sigmoid
from sweeps.grids.glyphs.recipe import LONG, SEEDS, glyphs_cell, glyphs_study
from sweeps.study import Study

STEPS = 1024
GROUPS_BY_SIZE = {
    64: (16, 64),
    256: (16, 64, 256),
    1024: (16, 64, 256, 1024),
    4096: (16, 256),  # at equal steps alone
}
B_INITS: tuple[float | Literal["prior"], ...] = (-10.0, "prior")


def in_groups(batch_size: int, group: int, b_init: float | Literal["prior"]) -> Sigmoid:
    """The loss of a batch in groups of this size; the whole batch is one group."""
    pairs = AllPairs() if group == batch_size else Groups(size=group)
    return Sigmoid(b_init=b_init, pairs=pairs)


def cells() -> list[Cell]:
    cells = [
        glyphs_cell(
            batch_size=batch_size,
            loss=in_groups(batch_size, group, b_init),
            seed=seed,
            examples=examples,
        )
        for seed in SEEDS
        for batch_size, groups in GROUPS_BY_SIZE.items()
        for examples in (LONG, STEPS * batch_size)
        if examples >= STEPS * batch_size
        for group in groups
        for b_init in B_INITS
    ]
    return list(dict.fromkeys(cells))


def study() -> Study:
    return glyphs_study(
        name="glyphs-examples-vs-pairs",
        question="On glyphs: what makes a large batch good, its examples or its pairs?",
        cells=cells(),
    )
