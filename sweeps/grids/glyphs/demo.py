"""study run demo && study figures demo && study claims demo

The main experiment in minutes on two CPU cores: the questions of the paper's Fig. 2 (left and
middle) and Fig. 6, on glyphs.

- SigLiT, batch size x loss at a fixed number of examples. The text tower averages word pieces,
  because the smallest transformer would take eight times as long.
- Batch composition at one batch size: random, hard or easy negatives kept, at three ratios.
- SigLIP from scratch, a few cells: the smallest ViT on pixels and the averaging text tower. In a
  trial (B = 64, 120,000 examples, validation font) the smallest text transformer reached 2.5 %
  image-to-text recall where the averaging tower reached 12.4 %, in more than twice the time.

The learning rate is RATE * sqrt(B / 256) for both losses. RATE was chosen on the validation font by
`study run demo-lr`; sweeps/grids/glyphs/demo_lr.py has the results.
"""

from __future__ import annotations

from study.config import Cell, Negatives, Sigmoid
from sweeps.grids.glyphs import recipe as glyphs
from sweeps.grids.glyphs.recipe import LOSSES, SIGLIP, glyphs_cell
from sweeps.study import Study

BATCH_SIZES = (16, 64, 128, 256, 512, 1024, 2048, 4096)
SEEDS = (0, 1)
EXAMPLES = 150_000
RATE = 1e-2

COMPOSITION_BATCH_SIZE = 512
PER_POSITIVE = (128, 16, 2)  # negatives kept

SCRATCH_BATCH_SIZES = (32, 256)
SCRATCH_EXAMPLES = 100_000
SCRATCH_RATE = 8e-3

EVALS = glyphs.evals(val_loss_every_percent=25)


def siglit() -> list[Cell]:
    return [
        glyphs_cell(
            batch_size=batch_size,
            loss=loss,
            seed=seed,
            examples=EXAMPLES,
            factor=RATE,
            evals=EVALS,
        )
        for seed in SEEDS
        for batch_size in BATCH_SIZES
        for loss in LOSSES
    ]


def composition() -> list[Cell]:
    return [
        glyphs_cell(
            batch_size=COMPOSITION_BATCH_SIZE,
            loss=Sigmoid(pairs=Negatives(keep=keep, per_positive=per_positive)),
            seed=seed,
            examples=EXAMPLES,
            factor=RATE,
            evals=EVALS,
        )
        for seed in SEEDS
        for keep in ("random", "hard", "easy")
        for per_positive in PER_POSITIVE
    ]


def from_scratch() -> list[Cell]:
    return [
        glyphs_cell(
            batch_size=batch_size,
            loss=loss,
            seed=seed,
            model=SIGLIP,
            examples=SCRATCH_EXAMPLES,
            factor=SCRATCH_RATE,
            evals=EVALS,
        )
        for seed in SEEDS
        for batch_size in SCRATCH_BATCH_SIZES
        for loss in LOSSES
    ]


def study() -> Study:
    return Study(
        name="demo",
        question="How do batch size, loss and the choice of negatives change quality on glyphs?",
        cells=(*siglit(), *composition(), *from_scratch()),
        prepare="study.data.glyphs.write:prepare",
        seconds=glyphs.seconds,
        paper="Fig. 2 left and middle, Fig. 6",
    )
