"""study run critical-batch

The local critical batch size over training, as Merrill et al. (arXiv 2505.23971) measure it: from
checkpoints of one long run at B = 64, runs at four batch sizes go on over the same 65,536 examples.
The loss on a fixed validation batch says which batch sizes are still as good as the smallest.

The rate does not decay, so that each checkpoint is a point of the same run, and grows with the root
of the batch size.
"""

from __future__ import annotations

import dataclasses

from study.config import Adam, Budget, Cell, Execution, branch_from
from sweeps.grids.glyphs.recipe import LONG, LOSSES, RATES, SEEDS, SHORT, glyphs_cell, glyphs_study
from sweeps.grids.rules import PowerRule
from sweeps.study import Assumption, Study

PARENT_BATCH = 64
BATCH_SIZES = (64, 256, 1024, 4096)
PERCENTS = (10, 40, 100)  # of the parent's examples


def cells() -> list[Cell]:
    cells = []
    for seed in SEEDS:
        for loss in LOSSES:
            rate = PowerRule(value=RATES[loss.kind], at=256, exponent=0.5)
            parent = glyphs_cell(
                batch_size=PARENT_BATCH,
                loss=loss,
                seed=seed,
                examples=LONG,
                optimizer=Adam(
                    b2=0.95, weight_decay=1e-4, warmup_percent=5, clip_norm=1.0, schedule="constant"
                ),
            )
            cells.append(parent)
            for percent in PERCENTS:
                for batch_size in BATCH_SIZES:
                    optimizer = dataclasses.replace(
                        parent.optimizer, learning_rate=rate(batch_size), warmup_percent=None
                    )
                    cells.append(
                        branch_from(
                            parent,
                            percent=percent,
                            batch_size=batch_size,
                            budget=Budget(examples=SHORT),
                            optimizer=optimizer,
                        )
                    )
    return cells


def study() -> Study:
    of_glyphs = glyphs_study(
        name="critical-batch",
        question="On glyphs: how does the critical batch size change while a model learns?",
        cells=cells(),
        assumptions=(
            Assumption("schedule", "constant after 5 % warm-up", "Checkpoints of one run compare."),
            Assumption(
                "learning rate", "RATES[loss] * sqrt(B / 256)", "The rule of the other grids."
            ),
        ),
    )
    return dataclasses.replace(of_glyphs, execution=Execution(keep_every_percent=10))
