"""study run glyphs-pairs-lr

Learning rate of batches that are split into groups: does an example that meets fewer pairs need
another rate than its batch size says? Off the diagonal of `glyphs-examples-vs-pairs` and on it,
from both initial biases, at 1,048,576 examples. The seed is used for nothing but tuning.

It does not: in groups of 16, of 256 and of 1,024 the same factor (the rate is factor * sqrt(B/256))
is the best of B = 1,024, or as good. So the grids take the rate of the batch size. Percent on
val_font:

| B, group    | start | 0.0025 | 0.005 | 0.01 | 0.02 | 0.04 |
|-------------|-------|--------|-------|------|------|------|
| 1,024, 16   | -10   | 42.2   | 44.4  | 42.9 | 40.9 |      |
|             | prior | 45.8   | 48.7  | 45.3 | 41.0 |      |
| 1,024, 256  | -10   | 50.2   | 53.9  | 52.6 | 52.2 |      |
|             | prior | 51.9   | 53.8  | 53.9 | 52.0 |      |
| 1,024       | -10   | 53.7   | 56.8  | 53.6 | 53.9 |      |
|             | prior | 54.8   | 55.6  | 55.0 | 55.0 |      |
| 4,096, 64   | -10   | 42.9   | 46.1  | 43.9 | 42.0 | 40.6 |
|             | prior | 48.6   | 51.4  | 49.5 | 47.2 | 44.7 |
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
