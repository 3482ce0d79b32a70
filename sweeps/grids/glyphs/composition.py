"""study run glyphs-composition

Batch composition on glyphs at B = 512: random, hard or easy negatives at four ratios beside the
whole batch, four times fewer each, three seeds; and hard with matched pairs at 1:128, beside an
unmasked run of as many examples, without which longer training would be taken for an effect of
the mask. (At 1:32 the pairs are matched by 16 times the examples, 25 minutes of a core for three
seeds.)
"""

from __future__ import annotations

from typing import Literal

from study.config import Cell, Negatives, Sigmoid
from sweeps.grids.glyphs.recipe import MIDDLE, SEEDS, glyphs_cell, glyphs_study
from sweeps.study import Study

BATCH_SIZE = 512
KEPT = (128, 32, 8, 2)  # negatives per positive; 511 without a mask
MATCHED = {128: 4}  # so many times the examples, for as many pairs
KEEP: tuple[Literal["random", "hard", "easy"], ...] = ("random", "hard", "easy")


def masked(
    *, keep: Literal["random", "hard", "easy"], kept: int, seed: int, times: int = 1
) -> Cell:
    loss = Sigmoid(pairs=Negatives(keep=keep, per_positive=kept))
    return glyphs_cell(batch_size=BATCH_SIZE, loss=loss, seed=seed, examples=times * MIDDLE)


def unmasked(*, seed: int, times: int = 1) -> Cell:
    return glyphs_cell(batch_size=BATCH_SIZE, seed=seed, examples=times * MIDDLE)


def cells() -> list[Cell]:
    found = []
    for seed in SEEDS:
        found += [unmasked(seed=seed, times=times) for times in (1, *MATCHED.values())]
        found += [masked(keep=keep, kept=kept, seed=seed) for keep in KEEP for kept in KEPT]
        found += [
            masked(keep="hard", kept=kept, seed=seed, times=times)
            for kept, times in MATCHED.items()
        ]
    return found


def study() -> Study:
    return glyphs_study(
        name="glyphs-composition",
        question="On glyphs: which negatives matter, and does their number?",
        cells=cells(),
        paper="Fig. 6",
    )
