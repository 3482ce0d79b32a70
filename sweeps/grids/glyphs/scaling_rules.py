"""study run scaling-rules

Settings tuned at B = 256 and carried to other batch sizes by rules, against the learning rate tuned
there by `glyphs-lr`; both losses, three seeds, SigLiT on glyphs. The paper keeps rate, beta2 and
decay at all batch sizes: the rate rule of exponent 0. The others, one at a time: the rate by the
root of B (Malladi et al., arXiv 2205.10287), linear in it (Goyal et al., 1706.02677) or by the
power that fits the search; beta2 with its half-life in examples (Marek et al., 2507.07101) or by
marin's rule; the decay with its time scale in examples (Bergsma et al., 2505.13738). Then root,
half-life and time scale together.

A smaller batch is compared at MIDDLE, where B = 16 has 16,384 steps, a larger one at LONG, where
1,024 has 1,024 steps. 4,096 has 256, too few to decide, and runs one rate, the root and the whole
recipe alone. 4 and 16,384 are left out: they would take half as long as all the rest, and 64 steps
show that they are few.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from study.config import Adam, Cell, Loss
from sweeps.grids.glyphs import lr
from sweeps.grids.glyphs.recipe import (
    LONG,
    LOSSES,
    MIDDLE,
    OPTIMIZER,
    SEEDS,
    glyphs_cell,
    glyphs_study,
    tuned_rate,
)
from sweeps.grids.rules import PowerRule
from sweeps.study import Assumption, Study

AT = 256
POINTS = ((16, MIDDLE), (1024, LONG), (4096, LONG))  # batch size and examples
DECIDING = (16, 1024)  # with 500 steps or more
# Exponents of the best rate in `glyphs-lr` at LONG, B = 16 to 4,096, within [0.23, 0.73] and
# [0.14, 0.60] (95 %, with 0.9 points between seeds).
FITTED = {"sigmoid": 0.43, "softmax": 0.34}

HALF_LIFE = round(AT * math.log(0.5) / math.log(OPTIMIZER.b2))  # examples: 3,459
MARIN = 22_169  # examples: between its bounds, `rules.marin_b2` is this half-life
DECAY_TIME = round(AT / OPTIMIZER.weight_decay)  # examples: 2,560,000


def arms(loss: Loss, batch_size: int, examples: int) -> Iterator[Adam]:
    """The optimizer by each rule; the first is tuned there."""

    start = tuned_rate(AT, loss, examples=examples)

    def by(exponent: float) -> float:
        rate = PowerRule(value=start, at=AT, exponent=exponent)(batch_size)
        return float(f"{rate:.3g}")

    here = tuned_rate(batch_size, loss, examples=examples)
    tuned = dataclasses.replace(OPTIMIZER, learning_rate=here)
    yield tuned
    deciding = batch_size in DECIDING
    for exponent in (0.0, 0.5, *((FITTED[loss.kind], 1.0) if deciding else ())):
        yield dataclasses.replace(tuned, learning_rate=by(exponent))
    if deciding:
        for half_life in (HALF_LIFE, MARIN):
            yield dataclasses.replace(tuned, b2_half_life_examples=half_life)
        yield dataclasses.replace(tuned, weight_decay_time_examples=DECAY_TIME)
    yield dataclasses.replace(
        tuned,
        learning_rate=by(0.5),
        b2_half_life_examples=HALF_LIFE,
        weight_decay_time_examples=DECAY_TIME,
    )


def cells() -> list[Cell]:
    compared = [
        glyphs_cell(
            batch_size=batch_size,
            loss=loss,
            seed=seed,
            examples=examples,
            learning_rate=optimizer.learning_rate,
            optimizer=optimizer,
        )
        for seed in SEEDS
        for batch_size, examples in POINTS
        for loss in LOSSES
        for optimizer in arms(loss, batch_size, examples)
    ]
    sizes = {AT, *(size for size, _ in POINTS)}
    searched = [c for c in lr.frozen() if c.batch_size in sizes]
    return list(dict.fromkeys([*compared, *searched]))


def study() -> Study:
    return glyphs_study(
        name="scaling-rules",
        question="What is tuned at one batch size: by which rule does it serve another?",
        cells=cells(),
        paper="Sec. 4.1 (one rate, decay and beta2 at all batch sizes)",
        assumptions=(
            Assumption("tuned at", "B = 256", "In the middle of the batch sizes of `glyphs-lr`."),
            Assumption(
                "tuned there", "the learning rate alone", "Each value of beta2 or decay is an arm."
            ),
        ),
    )
