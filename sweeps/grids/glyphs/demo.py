"""study run demo && study report demo --figures figures

The main experiment in minutes on two CPU cores: the questions of the paper's Fig. 2 (left) and
Fig. 6, on glyphs. From scratch minutes are too few: no learning rate reached 4 % accuracy in
100,000 examples. `study run glyphs-scratch` trains for longer.

- SigLiT, batch size x loss at a fixed number of examples. The text tower averages word pieces,
  because the smallest transformer would take eight times as long.
- Batch composition at one batch size: random, hard or easy negatives kept, at three ratios.

The learning rate is RATE * sqrt(B / 256) for both losses. RATE was chosen on the validation font by
`study run demo-lr`; sweeps/grids/glyphs/demo_lr.py has the results.
"""

from __future__ import annotations

from study.config import Cell, Negatives, Sigmoid
from sweeps.grids.glyphs import recipe as glyphs
from sweeps.grids.glyphs.recipe import LOSSES, glyphs_cell
from sweeps.study import Study

BATCH_SIZES = (16, 64, 128, 256, 512, 1024, 2048, 4096)
SEEDS = (0, 1)
EXAMPLES = 150_000
RATE = 1e-2

COMPOSITION_BATCH_SIZE = 512
PER_POSITIVE = (128, 16, 2)  # negatives kept

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


def study() -> Study:
    return Study(
        name="demo",
        question="How do batch size, loss and the choice of negatives change quality on glyphs?",
        cells=(*siglit(), *composition()),
        prepare="study.data.glyphs.write:prepare",
        seconds=glyphs.seconds,
        paper="Fig. 2 left, Fig. 6",
    )
