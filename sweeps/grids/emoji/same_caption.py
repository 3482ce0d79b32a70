"""study run emoji-same-caption

Do false negatives explain where sigmoid stops gaining from the batch? SigLiT on emoji in English,
three seeds, at 1,048,576 examples: pairs whose captions are equal, though they are two examples,
are negatives as in the paper, left out, or positives.

English alone, because there equal captions occur: 1.0 per example at B = 4,096, 0.25 at 1,024 and
0.06 at 256 (`study data false-negatives`). With 36 languages they are 0.04 at 4,096, and on glyphs
0.08, whose captions name the style of the font too.

B = 4,096 has 256 steps. What an equal caption counts as is compared at one batch size, so at equal
steps. The cells with negatives are those of `emoji-multilingual`.
"""

from __future__ import annotations

from study.config import Cell, Sigmoid
from study.config.loss import SameCaption
from sweeps.grids.emoji.recipe import LONG, SEEDS, emoji_cell, emoji_study
from sweeps.study import Study

BATCH_SIZES = (256, 1024, 4096)
SAME_CAPTION: tuple[SameCaption, ...] = ("negative", "masked", "positive")


def cells() -> list[Cell]:
    return [
        emoji_cell(
            batch_size=batch_size,
            loss=Sigmoid(same_caption=same),
            seed=seed,
            examples=LONG,
            split="train_en",
        )
        for seed in SEEDS
        for batch_size in BATCH_SIZES
        for same in SAME_CAPTION
    ]


def study() -> Study:
    return emoji_study(
        name="emoji-same-caption",
        question="In English: do false negatives explain where sigmoid stops gaining?",
        cells=cells(),
    )
