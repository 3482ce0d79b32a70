"""study run emoji-lr

Learning rate x batch size x loss, on the drawings of one artist and judged on another: neither the
split nor the seed is used elsewhere. It determines the rates in `sweeps.grids.emoji.recipe`.
"""

from __future__ import annotations

from study.config import Cell, Eval, MultilingualRetrieval, ValLoss, ZeroShot
from sweeps.grids.emoji.recipe import (
    DATASET,
    LONG,
    LOSSES,
    SHORT,
    TUNING_SEED,
    emoji_cell,
    emoji_study,
)
from sweeps.study import Study

FACTORS = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
SEARCHES = ((SHORT, (64, 256, 1024, 4096), FACTORS), (LONG, (1024, 4096), FACTORS[1:4]))
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
            examples=examples,
            split="tune",
            factor=factor,
            evals=EVALS,
        )
        for examples, batch_sizes, factors in SEARCHES
        for batch_size in batch_sizes
        for factor in factors
        for loss in LOSSES
    ]


def study() -> Study:
    return emoji_study(
        name="emoji-lr",
        question="In 36 languages: which learning rate suits each loss at each batch size?",
        cells=cells(),
        paper="App. C",
    )
