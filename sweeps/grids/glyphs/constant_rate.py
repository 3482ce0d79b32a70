"""study run glyphs-constant-rate

The paper's rule on glyphs, three seeds: one learning rate at all batch sizes, the one that is best
at B = 256, beside the tuned rates of `glyphs-batch-size`.
"""

from __future__ import annotations

from sweeps.grids.glyphs.recipe import (
    LONG,
    LOSSES,
    MIDDLE,
    SEEDS,
    glyphs_cell,
    glyphs_study,
    tuned_rate,
)
from sweeps.study import Study

AT = 256
BATCH_SIZES = {MIDDLE: (16, 64, 256, 1024, 4096), LONG: (16, 64, 256, 1024, 4096)}


def study() -> Study:
    return glyphs_study(
        name="glyphs-constant-rate",
        question="On glyphs: what does one learning rate for all batch sizes cost?",
        cells=[
            glyphs_cell(
                batch_size=batch_size,
                loss=loss,
                seed=seed,
                examples=examples,
                learning_rate=tuned_rate(AT, loss, examples=examples),
            )
            for seed in SEEDS
            for examples, batch_sizes in BATCH_SIZES.items()
            for batch_size in batch_sizes
            for loss in LOSSES
        ],
        paper="Fig. 2 left",
    )
