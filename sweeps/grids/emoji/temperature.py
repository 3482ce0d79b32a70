"""study run emoji-temperature

A temperature that is learned, as in the paper (Sec. 3.2), against one that is fixed, with both
losses and two tokenizers, B = 1,024, three seeds. There are two artists to train on, and at a high
temperature texts come to name single drawings of theirs.
"""

from __future__ import annotations

import dataclasses

from study.config import Cell, Loss, ParamGroup, Sigmoid, Softmax
from study.data.emoji.vocabularies import file_name
from sweeps.grids.emoji.recipe import ASSUMPTIONS, LONG, LOSSES, SEEDS, emoji_cell, emoji_study
from sweeps.study import Assumption, Study

BATCH_SIZE = 1024
TOKENIZERS = (None, file_name(64_000))
TEMPERATURE = 16
FIXED: tuple[Loss, ...] = (Sigmoid(t_init=TEMPERATURE), Softmax(t_init=TEMPERATURE))
START = Assumption(
    "fixed temperature",
    "16; sigmoid's bias stays at -10",
    "One seed, 64,000 pieces: 46.1 % recall fixed at 16 (softmax), 38.5 % learned (sigmoid, 27 at "
    "the end). At width 256, 16,000 pieces, sigmoid fixed at 10 was 7 points below softmax at 16.",
)


def cell(*, loss: Loss, tokenizer: str | None, seed: int, fixed: bool) -> Cell:
    """A cell whose t and b are learned, or stay where they begin."""
    learned = emoji_cell(
        batch_size=BATCH_SIZE, loss=loss, seed=seed, examples=LONG, tokenizer=tokenizer
    )
    scalars = ParamGroup(frozen=fixed)
    optimizer = dataclasses.replace(learned.optimizer, loss_scalars=scalars)
    return dataclasses.replace(learned, optimizer=optimizer)


def cells() -> list[Cell]:
    return [
        cell(loss=loss, tokenizer=tokenizer, seed=seed, fixed=losses is FIXED)
        for seed in SEEDS
        for tokenizer in TOKENIZERS
        for losses in (LOSSES, FIXED)
        for loss in losses
    ]


def study() -> Study:
    return emoji_study(
        name="emoji-temperature",
        question="In 36 languages: does a learned temperature fit the artists it is trained on?",
        cells=cells(),
        paper="Sec. 3.2",
        prepare="sweeps.grids.emoji.vocabulary:prepare",
        assumptions=(*ASSUMPTIONS, START),
    )
