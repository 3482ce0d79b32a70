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
"""

from __future__ import annotations

from study.config import ValLoss, ZeroShot
from sweeps.grids.glyphs import demo
from sweeps.grids.glyphs.recipe import LOSSES, glyphs_cell, seconds
from sweeps.study import Study

RATES = (5e-3, 1e-2, 2e-2)
BATCH_SIZES = (16, 256, 4096)
SEED = 100
EVALS = (ZeroShot(split="val_font"), ValLoss(split="val_font", every_percent=25))


def study() -> Study:
    return Study(
        name="demo-lr",
        question="Which learning rate suits both losses at all batch sizes of `demo`?",
        cells=tuple(
            glyphs_cell(
                batch_size=batch_size,
                loss=loss,
                seed=SEED,
                examples=demo.EXAMPLES,
                factor=rate,
                evals=EVALS,
            )
            for batch_size in BATCH_SIZES
            for loss in LOSSES
            for rate in RATES
        ),
        prepare="study.data.glyphs.write:prepare",
        seconds=seconds,
    )
