"""study run table-7

How much do repeated runs differ, and does the optimizer matter? SigLIP from scratch at 32k and 3B
examples (App. C): three recipes, five runs each, and one with linear decay: 16 cells.
"""

from __future__ import annotations

import dataclasses

from study.config import Adam
from sweeps.grids.paper import assumptions
from sweeps.grids.paper.recipe import (
    ADAFACTOR,
    BILLION,
    MILLION,
    SIGMOID,
    SOFTMAX,
    K,
    paper_study,
    siglip_cell,
)
from sweeps.study import Assumption, Study

SEEDS = range(5)
ADAMW = Adam(
    learning_rate=1e-3,
    weight_decay=1e-4,
    b1=0.9,
    b2=0.95,
    warmup_examples=200 * MILLION,
    clip_norm=1.0,
)
LINEAR = dataclasses.replace(ADAFACTOR, schedule="linear")

ASSUMPTIONS = (
    *(a for a in assumptions.SIGLIP if a is not assumptions.SEED),
    Assumption(
        "seeds",
        "0 to 4, of data order and initial parameters",
        "The paper says five runs.",
    ),
    Assumption(
        "AdamW", "rate, decay, betas and warm-up of Adafactor", "Its settings are not given."
    ),
    Assumption("linear decay", "sigmoid, one run", "One number is given, without the loss."),
)


def study() -> Study:
    recipes = ((SOFTMAX, ADAFACTOR), (SIGMOID, ADAFACTOR), (SIGMOID, ADAMW))
    return paper_study(
        name="table-7",
        question="How much do repeated runs, losses and optimizers differ?",
        cells=[
            *(
                siglip_cell(
                    batch_size=32 * K,
                    budget=3 * BILLION,
                    loss=loss,
                    optimizer=optimizer,
                    seed=seed,
                )
                for loss, optimizer in recipes
                for seed in SEEDS
            ),
            siglip_cell(batch_size=32 * K, budget=3 * BILLION, optimizer=LINEAR),
        ],
        paper="Table 7",
        assumptions=ASSUMPTIONS,
    )
