"""study run emoji-same-caption

Do false negatives explain where sigmoid stops gaining from the batch? SigLiT on emoji in English,
three seeds, at 1,048,576 examples. A pair of two examples with equal captions is a negative as in
the paper, left out, or a positive. A pair of one emoji, whatever its two captions, is left out as
well: half of the captions are names, and the others keywords that fit as well.

English alone, because there equal captions occur: 1.0 per example at B = 4,096, 0.25 at 1,024 and
0.06 at 256; of one emoji 2.8, 0.7 and 0.17 (`study data false-negatives`). With 36 languages equal
captions are 0.04 at 4,096. On glyphs they are 0.08, and those of one character, 0.84, differ in the
style of the font, which the caption names.

B = 4,096 has 256 steps. What such a pair counts as is compared at one batch size, so at equal
steps. The cells with negatives are those of `emoji-multilingual`; the others are evaluated in
English only, which takes a quarter of the time.
"""

from __future__ import annotations

from study.config import Cell, MultilingualRetrieval, Sigmoid
from study.config.loss import SameBy, SameCaption
from sweeps.grids.emoji.recipe import EVALS, LONG, SEEDS, emoji_cell, emoji_study
from sweeps.study import Study

BATCH_SIZES = (256, 1024, 4096)
SAME: tuple[tuple[SameCaption, SameBy], ...] = (
    *(("negative", "caption"), ("masked", "caption"), ("positive", "caption")),
    ("masked", "class"),
)
IN_ENGLISH = tuple(e for e in EVALS if not isinstance(e, MultilingualRetrieval))


def cells() -> list[Cell]:
    return [
        emoji_cell(
            batch_size=batch_size,
            loss=Sigmoid(same_caption=same, same_by=by),
            seed=seed,
            examples=LONG,
            split="train_en",
            evals=EVALS if same == "negative" else IN_ENGLISH,
        )
        for seed in SEEDS
        for batch_size in BATCH_SIZES
        for same, by in SAME
    ]


def study() -> Study:
    return emoji_study(
        name="emoji-same-caption",
        question="In English: do false negatives explain where sigmoid stops gaining?",
        cells=cells(),
    )
