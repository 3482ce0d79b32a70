"""study run demo-lr

Chooses the learning rate of `demo`, which is RATE * sqrt(B / 256) for both losses: the RATE with
the best mean zero-shot accuracy on the validation font over all batch sizes and both losses. The
seed is used nowhere else.

Results in percent on val_font (sigmoid / softmax):

| SigLiT RATE | B = 16    | B = 256   | B = 4096  | mean |
|-------------|-----------|-----------|-----------|------|
| 0.005       | 23.3/20.9 | 38.6/36.8 | 27.7/26.6 | 29.0 |
| **0.01**    | 30.5/25.4 | 40.9/37.9 | 28.7/28.8 | 32.0 |
| 0.02        | 29.1/24.6 | 38.5/37.5 | 11.9/19.9 | 26.9 |

| SigLIP RATE | B = 32    | B = 256   | mean |
|-------------|-----------|-----------|------|
| 0.002       | 0.9/1.2   | 0.4/0.5   | 0.7  |
| 0.004       | 1.7/2.4   | 1.1/2.5   | 1.9  |
| 0.008       | 3.5/3.1   | 1.1/3.1   | 2.7  |
| 0.016       | 2.6/3.5   | 0.1/3.0   | 2.3  |
"""

from __future__ import annotations

from study.config import ValLoss, ZeroShot
from sweeps.grids.glyphs import demo
from sweeps.grids.glyphs.recipe import LOSSES, SIGLIP, SIGLIT, glyphs_cell, seconds
from sweeps.study import Study

RATES = (5e-3, 1e-2, 2e-2)
SCRATCH_RATES = (4e-3, 8e-3, 1.6e-2)
BATCH_SIZES = (16, 256, 4096)
SCRATCH_BATCH_SIZES = (32, 256)
SEED = 100
EVALS = (ZeroShot(split="val_font"), ValLoss(split="val_font", every_percent=25))


def study() -> Study:
    panels = (
        (SIGLIT, demo.EXAMPLES, BATCH_SIZES, RATES),
        (SIGLIP, demo.SCRATCH_EXAMPLES, SCRATCH_BATCH_SIZES, SCRATCH_RATES),
    )
    return Study(
        name="demo-lr",
        question="Which learning rate suits both losses at all batch sizes of `demo`?",
        cells=tuple(
            glyphs_cell(
                batch_size=batch_size,
                loss=loss,
                seed=SEED,
                examples=examples,
                model=model,
                factor=rate,
                evals=EVALS,
            )
            for model, examples, batch_sizes, rates in panels
            for batch_size in batch_sizes
            for loss in LOSSES
            for rate in rates
        ),
        prepare="study.data.glyphs.write:prepare",
        seconds=seconds,
    )
