"""study run glyphs-scratch-lr

Learning rate x batch size x loss from scratch, on a seed that is used nowhere else. It determines
`RATES` in `sweeps.grids.glyphs.scratch` by accuracy on the validation font. Rates are factors of
two apart; the best is never the lowest or the highest. A run has a quarter of
the examples of `glyphs-scratch`.
"""

from __future__ import annotations

from study.config import ValLoss, ZeroShot
from sweeps.grids.glyphs.recipe import LOSSES, MIDDLE, TUNING_SEED, glyphs_study
from sweeps.grids.glyphs.scratch import RATES, scratch_cell
from sweeps.study import Study

EVALS = (ZeroShot(split="val_font"), ZeroShot(split="test_font"), ValLoss(split="val_font"))
# By loss and batch size.
TRIED: dict[str, dict[int, tuple[float, ...]]] = {
    "sigmoid": {
        64: (1e-3, 2e-3, 4e-3),
        256: (2e-3, 4e-3, 8e-3),
        1024: (4e-3, 8e-3, 1.6e-2),
    },
    "softmax": {
        64: (1e-3, 2e-3, 4e-3),
        256: (1e-3, 2e-3, 4e-3, 8e-3),
        1024: (4e-3, 8e-3, 1.6e-2),
    },
}


def study() -> Study:
    return glyphs_study(
        name="glyphs-scratch-lr",
        question="From scratch on glyphs: which learning rate suits each loss at each batch size?",
        cells=[
            scratch_cell(
                batch_size=batch_size,
                loss=loss,
                learning_rate=rate,
                seed=TUNING_SEED,
                examples=MIDDLE,
                evals=EVALS,
            )
            for batch_size in RATES["sigmoid"]
            for loss in LOSSES
            for rate in TRIED[loss.kind][batch_size]
        ],
        paper="App. C",
    )
