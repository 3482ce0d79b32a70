"""study run batch-warmup

A batch size that grows during training against each of its sizes held constant, at equal examples:
256, 1,024 after a quarter of the run and 4,096 after half of it. The larger sizes begin where
`critical-batch` finds that they cost softmax nothing.

With sigmoid each such run is trained twice: its bias stays as it was learned, or follows the odds
of a positive at each change of the batch size.

The rate is that of `critical-batch` at every batch size, under one cosine over the whole run.
"""

from __future__ import annotations

from study.config import Cell, batch_schedule
from sweeps.grids.glyphs.critical_batch import RATE
from sweeps.grids.glyphs.recipe import LOSSES, MIDDLE, SEEDS, glyphs_cell, glyphs_study
from sweeps.study import Assumption, Study

SIZES = ((0, 256), (25, 1024), (50, 4096))  # percent of the run, batch size


def cells() -> list[Cell]:
    cells: list[Cell] = []
    for seed in SEEDS:
        for loss in LOSSES:
            constant = [
                glyphs_cell(
                    batch_size=size,
                    loss=loss,
                    seed=seed,
                    examples=MIDDLE,
                    factor=RATE.value,
                )
                for _, size in SIZES
            ]
            cells += constant
            for shift_bias in (False, True):
                cells += batch_schedule(constant[0], SIZES, rate=RATE, shift_bias=shift_bias)
    return list({cell.id: cell for cell in cells}.values())


def study() -> Study:
    return glyphs_study(
        name="batch-warmup",
        question="On glyphs: is a batch size that grows ahead of constant ones at equal examples?",
        cells=cells(),
        assumptions=(
            Assumption("learning rate", "0.01 * sqrt(B / 256)", "That of `critical-batch`."),
            Assumption("batch size", "x4 twice, at 25 and 50 %", "By `critical-batch`, softmax."),
        ),
    )
