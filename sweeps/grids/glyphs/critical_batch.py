"""study run critical-batch

The local critical batch size over training, as Merrill et al. (arXiv 2505.23971) measure it: from
checkpoints of one long run at B = 64, runs at four batch sizes go on over the same 65,536 examples.
The softmax loss on a fixed validation batch, which both losses have, says which batch sizes are
still as good as all smaller ones (`analysis.stats.local_critical_batch`).

A learned bias of sigmoid holds the odds of a positive at B = 64, so with sigmoid each branch is
trained twice: with that bias, and with one that follows the batch size (`branch_from`).

The rate does not decay, so that each checkpoint is a point of the same run, and grows with the root
of the batch size, as theirs: 0.01 at B = 256 for both losses. In `glyphs-lr` that is the best of
five rates at B = 64, 256 and 4096 for both losses; at B = 1024 half of it is better, by 0.1 points
(sigmoid) and 1.1 (softmax).
"""

from __future__ import annotations

import dataclasses
import itertools

from study.config import Budget, Cell, Execution, branch_from
from sweeps.grids.glyphs.recipe import (
    LONG,
    LOSSES,
    OPTIMIZER,
    SEEDS,
    SHORT,
    glyphs_cell,
    glyphs_study,
)
from sweeps.grids.rules import PowerRule
from sweeps.study import Assumption, Study

PARENT_BATCH = 64
BATCH_SIZES = (64, 256, 1024, 4096)
PERCENTS = (5, 25, 100)  # of the parent's examples; a branch has 6.25 % of them
RATE = PowerRule(value=0.01, at=256, exponent=0.5)


def cells() -> list[Cell]:
    cells = []
    for seed in SEEDS:
        for loss in LOSSES:
            parent = glyphs_cell(
                batch_size=PARENT_BATCH,
                loss=loss,
                seed=seed,
                examples=LONG,
                factor=RATE.value,
                optimizer=dataclasses.replace(OPTIMIZER, schedule="constant"),
            )
            cells.append(parent)
            for percent in PERCENTS:
                for batch_size, shift_bias in itertools.product(BATCH_SIZES, (False, True)):
                    optimizer = dataclasses.replace(
                        parent.optimizer, learning_rate=RATE(batch_size), warmup_percent=None
                    )
                    cells.append(
                        branch_from(
                            parent,
                            percent=percent,
                            batch_size=batch_size,
                            budget=Budget(examples=SHORT),
                            optimizer=optimizer,
                            shift_bias=shift_bias,
                        )
                    )
    return list({cell.id: cell for cell in cells}.values())


def study() -> Study:
    of_glyphs = glyphs_study(
        name="critical-batch",
        question="On glyphs: how does the critical batch size change while a model learns?",
        cells=cells(),
        assumptions=(
            Assumption("schedule", "constant after 5 % warm-up", "Checkpoints of one run compare."),
            Assumption("learning rate", "0.01 * sqrt(B / 256)", "Merrill et al.'s rule for Adam."),
        ),
    )
    return dataclasses.replace(of_glyphs, execution=Execution(keep_every_percent=5))
