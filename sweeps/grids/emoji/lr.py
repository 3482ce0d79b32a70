"""study run emoji-lr

Learning rate x batch size x loss, on the drawings of one artist and judged on another: neither the
split nor the seed is used elsewhere. It determines the rates in `sweeps.grids.emoji.recipe`.
"""

from __future__ import annotations

from study.config import Cell, Eval, MultilingualRetrieval, ValLoss, ZeroShot
from sweeps.grids.emoji.recipe import (
    DATASET,
    LOSSES,
    SHORT,
    TUNING_SEED,
    emoji_cell,
    emoji_study,
)
from sweeps.study import Study

BATCH_SIZES = (64, 256, 1024, 4096)
FACTORS = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
EVALS: tuple[Eval, ...] = (
    MultilingualRetrieval(dataset=DATASET, split="val_artist"),
    ZeroShot(split="val_artist"),
    ValLoss(split="val_pairs"),
)


def cells() -> list[Cell]:
    return [
        emoji_cell(
            batch_size=batch_size,
            loss=loss,
            seed=TUNING_SEED,
            examples=SHORT,
            split="tune",
            factor=factor,
            evals=EVALS,
        )
        for batch_size in BATCH_SIZES
        for factor in FACTORS
        for loss in LOSSES
    ]


def study() -> Study:
    return emoji_study(
        name="emoji-lr",
        question="In 36 languages: which learning rate suits each loss at each batch size?",
        cells=cells(),
        paper="App. C",
    )
