"""study run emoji-multilingual

Recall in each of 36 languages by batch size (Table 9, Fig. 8), and at equal examples: English only,
36 languages equally frequent, and 36 by their share of the web. Sigmoid only, as in the paper. The
cells of 36 equally frequent languages are in `emoji-batch-size` too.
"""

from __future__ import annotations

from study.config import Cell
from sweeps.grids.emoji.recipe import LONG, LONGEST, SEEDS, emoji_cell, emoji_study
from sweeps.study import Study

BATCH_SIZES = (256, 1024, 4096)
LARGEST = 16_384  # 36 languages alone
LANGUAGES = ("train", "train_en", "train_web")  # splits


def cells() -> list[Cell]:
    return [
        emoji_cell(batch_size=batch_size, seed=seed, examples=LONG, split=split)
        for seed in SEEDS
        for split in LANGUAGES
        for batch_size in BATCH_SIZES
    ] + [
        emoji_cell(batch_size=batch_size, seed=seed, examples=examples)
        for seed in SEEDS
        for batch_size, examples in ((LARGEST, LONG), *((b, LONGEST) for b in BATCH_SIZES))
    ]


def study() -> Study:
    return emoji_study(
        name="emoji-multilingual",
        question="SigLiT: which of 36 languages gain with the batch, and what do they cost?",
        cells=cells(),
        paper="Table 9, Fig. 8",
    )
