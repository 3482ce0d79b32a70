"""study run glyphs-composition

Batch composition on glyphs at B = 512, three seeds: the whole batch, and random, hard or easy
negatives at four ratios, each with a quarter of the negatives of the one before. Then hard
negatives with matched pairs at 1:128, and an unmasked run of as many examples: without it, the
effect of longer training would be taken for an effect of the mask. (At 1:32, matching the pairs
takes 16 times the examples: 25 minutes of one core for three seeds.)
"""

from __future__ import annotations

from typing import Literal

from study.config import Cell, Negatives, Sigmoid
from sweeps.grids.glyphs.recipe import MIDDLE, SEEDS, glyphs_cell, glyphs_study
from sweeps.study import Study

BATCH_SIZE = 512
PER_POSITIVE = (128, 32, 8, 2)  # negatives kept per positive; 511 without a mask
MATCHED_PER_POSITIVE, MATCHED_EXAMPLES = 128, 4 * MIDDLE  # as many pairs as 511 on MIDDLE
KEEP: tuple[Literal["random", "hard", "easy"], ...] = ("random", "hard", "easy")


def cells() -> list[Cell]:
    cells = []
    for seed in SEEDS:
        cells += [
            glyphs_cell(batch_size=BATCH_SIZE, seed=seed, examples=examples)
            for examples in (MIDDLE, MATCHED_EXAMPLES)
        ]
        masks = [(keep, n, MIDDLE) for keep in KEEP for n in PER_POSITIVE]
        cells += [
            glyphs_cell(
                batch_size=BATCH_SIZE,
                loss=Sigmoid(pairs=Negatives(keep=keep, per_positive=n)),
                seed=seed,
                examples=examples,
            )
            for keep, n, examples in [*masks, ("hard", MATCHED_PER_POSITIVE, MATCHED_EXAMPLES)]
        ]
    return cells


def study() -> Study:
    return glyphs_study(
        name="glyphs-composition",
        question="On glyphs: which negatives matter, and does their number?",
        cells=cells(),
        paper="Fig. 6",
    )
