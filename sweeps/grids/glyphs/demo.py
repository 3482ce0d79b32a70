"""study run demo && study figures demo && study claims demo

The main job in minutes on two CPU cores: what the paper's Fig. 2 (left and middle) and Fig. 6
ask, on glyphs.

- SigLiT, batch size x loss at a fixed number of examples. Text tower: the averaging variant,
  because the smallest transformer would take eight times as long.
- Batch composition at one batch size: random, hard or easy negatives kept, at three ratios.
- SigLIP from scratch, a few cells: the smallest ViT on pixels and the averaging text tower. In a
  trial (B = 64, 120,000 examples, validation font) the smallest text transformer reached 2.5 %
  image-to-text recall where the averaging tower reached 12.4 %, in more than twice the time.

Learning rate: RATE * sqrt(B / 256), the same for both losses. RATE was chosen on the validation
font by `study run demo-lr`; what it gave is in sweeps/grids/glyphs/demo_lr.py.
"""

from __future__ import annotations

from study.config import Cell, Eval, Loss, Model, Negatives, Sigmoid
from sweeps.grids.glyphs import recipe as glyphs
from sweeps.grids.glyphs.recipe import LOSSES, SIGLIP, SIGLIT, glyphs_cell
from sweeps.study import Study

BATCH_SIZES = (16, 64, 128, 256, 512, 1024, 2048, 4096)
SEEDS = (0, 1)
EXAMPLES = 150_000
RATE = 1e-2

COMPOSITION_BATCH_SIZE = 512
KEPT_PER_POSITIVE = (128, 16, 2)

SCRATCH_BATCH_SIZES = (32, 256)
SCRATCH_EXAMPLES = 100_000
SCRATCH_RATE = 8e-3

EVALS = glyphs.evals(val_loss_every_percent=25)


def cell(
    *,
    batch_size: int,
    loss: Loss,
    seed: int,
    model: Model = SIGLIT,
    examples: int = EXAMPLES,
    rate: float = RATE,
    evals: tuple[Eval, ...] = EVALS,
) -> Cell:
    """A cell of this study; `sweeps.grids.glyphs.recipe` holds what all cells on glyphs share."""
    return glyphs_cell(
        batch_size=batch_size,
        loss=loss,
        seed=seed,
        examples=examples,
        model=model,
        factor=rate,
        evals=evals,
    )


def siglit() -> list[Cell]:
    return [
        cell(batch_size=batch_size, loss=loss, seed=seed)
        for seed in SEEDS
        for batch_size in BATCH_SIZES
        for loss in LOSSES
    ]


def composition() -> list[Cell]:
    return [
        cell(
            batch_size=COMPOSITION_BATCH_SIZE,
            loss=Sigmoid(pairs=Negatives(keep=keep, per_positive=ratio)),
            seed=seed,
        )
        for seed in SEEDS
        for keep in ("random", "hard", "easy")
        for ratio in KEPT_PER_POSITIVE
    ]


def from_scratch() -> list[Cell]:
    return [
        cell(
            batch_size=batch_size,
            loss=loss,
            seed=seed,
            model=SIGLIP,
            examples=SCRATCH_EXAMPLES,
            rate=SCRATCH_RATE,
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
