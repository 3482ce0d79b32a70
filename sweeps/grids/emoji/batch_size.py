"""study run emoji-batch-size

SigLiT on emoji-36, batch size x loss x budget, three seeds: Fig. 2 right and Table 2 in small.

16,384 is trained at 1,048,576 examples only, where it has 64 steps. At 2,097,152, 4,096 has 512.
"""

from __future__ import annotations

from study.config import Cell
from sweeps.grids.emoji.recipe import (
    LONG,
    LONGEST,
    LOSSES,
    SEEDS,
    SHORT,
    emoji_cell,
    emoji_study,
)
from sweeps.study import Study

BATCH_SIZES = {
    SHORT: (64, 256, 1024, 4096),
    LONG: (64, 256, 1024, 4096, 16_384),
    LONGEST: (256, 1024, 4096),
}


def cells() -> list[Cell]:
    return [
        emoji_cell(batch_size=batch_size, loss=loss, seed=seed, examples=examples)
        for seed in SEEDS
        for examples, batch_sizes in BATCH_SIZES.items()
        for batch_size in batch_sizes
        for loss in LOSSES
    ]


def study() -> Study:
    return emoji_study(
        name="emoji-batch-size",
        question="SigLiT in 36 languages: which batch size, with which loss, at which budget?",
        cells=cells(),
        paper="Table 2, Fig. 2 right",
    )
