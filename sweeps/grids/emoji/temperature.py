"""study run emoji-temperature

A temperature that is learned, as in the paper (Sec. 3.2), against one that is fixed, with both
losses, B = 1,024, three seeds; fixed at a wider text tower too. There are two artists to train on,
and with a high temperature texts come to name single drawings of theirs.
"""

from __future__ import annotations

import dataclasses

from study.config import Cell, Loss, MeanPoolText, ParamGroup, Sigmoid, Softmax
from sweeps.grids.emoji.recipe import (
    ASSUMPTIONS,
    LONG,
    LOSSES,
    SEEDS,
    SIGLIT,
    WIDTH,
    emoji_cell,
    emoji_study,
)
from sweeps.study import Assumption, Study

BATCH_SIZE = 1024
WIDE = 256
TEMPERATURE = 16
FIXED: tuple[Loss, ...] = (Sigmoid(t_init=TEMPERATURE), Softmax(t_init=TEMPERATURE))
START = Assumption(
    "fixed temperature",
    "16; sigmoid's bias stays at -10",
    "One seed at width 256: 32.0 % fixed at 16 (softmax, 1,048,576 examples), and 25.5 % learned "
    "(sigmoid, four times the examples, 38 at the end).",
)


def fixed_cell(*, loss: Loss, width: int, seed: int) -> Cell:
    """A cell whose t and b stay where they begin."""
    model = dataclasses.replace(SIGLIT, text=MeanPoolText(width=width))
    cell = emoji_cell(batch_size=BATCH_SIZE, loss=loss, seed=seed, examples=LONG, model=model)
    optimizer = dataclasses.replace(cell.optimizer, loss_scalars=ParamGroup(frozen=True))
    return dataclasses.replace(cell, optimizer=optimizer)


def cells() -> list[Cell]:
    learned = [
        emoji_cell(batch_size=BATCH_SIZE, loss=loss, seed=seed, examples=LONG)
        for seed in SEEDS
        for loss in LOSSES
    ]
    fixed = [
        fixed_cell(loss=loss, width=width, seed=seed)
        for seed in SEEDS
        for width in (WIDTH, WIDE)
        for loss in FIXED
    ]
    return learned + fixed


def study() -> Study:
    return emoji_study(
        name="emoji-temperature",
        question="In 36 languages: does a learned temperature fit the artists it is trained on?",
        cells=cells(),
        paper="Sec. 3.2",
        assumptions=(*ASSUMPTIONS, START),
    )
