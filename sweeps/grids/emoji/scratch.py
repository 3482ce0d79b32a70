"""study run emoji-scratch

SigLIP on emoji-36 with both towers from scratch beside the frozen tower, batch size x languages,
three seeds at equal examples: whether what the batch and the languages do depends on the tower. The
cells with the frozen tower are in `emoji-multilingual` too.
"""

from __future__ import annotations

from study.config import Cell, MeanPoolText, Model, ViT
from sweeps.grids.emoji.recipe import ASSUMPTIONS, DIM, LONG, SEEDS, WIDTH, emoji_cell, emoji_study
from sweeps.study import Assumption, Study

BATCH_SIZES = (256, 4096)
LANGUAGES = ("train", "train_en")  # splits
FACTOR = 4e-3
SIGLIP = Model(
    image=ViT(variant="Ti/24", image_size=24, pool="gap", depth=1),
    text=MeanPoolText(width=WIDTH),
    embed_dim=DIM,
)
TOWER = Assumption(
    "tower from scratch",
    "one block of Ti on one patch of 24 pixels, 0.004 * sqrt(min(B, 4096) / 256), 50 % warm-up",
    "12.5 % recall at B = 1,024 (one seed). Four patches of 12 pixels, twice the rate, had 1.4 % "
    "after 294,912 examples at B = 256, and take two and a half times as long.",
)


def scratch_cell(*, batch_size: int, split: str, seed: int) -> Cell:
    return emoji_cell(
        batch_size=batch_size,
        seed=seed,
        examples=LONG,
        split=split,
        model=SIGLIP,
        factor=FACTOR,
        warmup_percent=50,
    )


def cells() -> list[Cell]:
    return [
        cell
        for seed in SEEDS
        for split in LANGUAGES
        for batch_size in BATCH_SIZES
        for cell in (
            scratch_cell(batch_size=batch_size, seed=seed, split=split),
            emoji_cell(batch_size=batch_size, seed=seed, examples=LONG, split=split),
        )
    ]


def study() -> Study:
    return emoji_study(
        name="emoji-scratch",
        question="Does the batch act on languages from scratch as it does with a frozen tower?",
        cells=cells(),
        paper="Table 2",
        assumptions=(*ASSUMPTIONS, TOWER),
    )
