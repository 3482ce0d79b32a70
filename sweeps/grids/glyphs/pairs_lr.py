"""study run glyphs-pairs-lr

Learning rate of batches that are split into groups: does an example that meets fewer pairs need
another rate than its batch size says? Off the diagonal of `glyphs-examples-vs-pairs` and on it,
from both initial biases, at 1,048,576 examples. The seed is used for nothing but tuning.
"""

from __future__ import annotations

from sweeps.grids.glyphs.examples_vs_pairs import B_INITS, in_groups
from sweeps.grids.glyphs.recipe import LONG, TUNING_SEED, glyphs_cell, glyphs_study
from sweeps.study import Study

FACTORS = (2.5e-3, 5e-3, 1e-2, 2e-2)
POINTS = {  # batch size and group: factors
    (4096, 64): (*FACTORS, 4e-2),
    (1024, 16): FACTORS,
    (1024, 256): FACTORS,
    (1024, 1024): FACTORS,
}


def study() -> Study:
    return glyphs_study(
        name="glyphs-pairs-lr",
        question="On glyphs: does an example that meets fewer pairs need another learning rate?",
        cells=[
            glyphs_cell(
                batch_size=batch_size,
                loss=in_groups(batch_size, group, b_init),
                factor=factor,
                seed=TUNING_SEED,
                examples=LONG,
            )
            for (batch_size, group), factors in POINTS.items()
            for b_init in B_INITS
            for factor in factors
        ],
    )
