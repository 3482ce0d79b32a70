"""study run pairs-beyond

Does a queue give a small batch what a large one has? SigLiT on glyphs with both losses, three
seeds. A batch of B with a queue of Q meets as many pairs per example as a batch of B + Q, which is
beside it: 64 + 192 = 256, 64 + 960 = 1,024 and 256 + 768 = 1,024.

- At equal examples, 524,288: every batch size has 512 steps or more. (4,096 would have 128, so
  nothing fair stands beside a queue of 15 * 256, which is left out.)
- At equal FLOPs: those of B = 1,024 on 524,288 examples. The towers are nearly free here, so pairs
  are what FLOPs go into: the small batch with its queue takes a sixth (sigmoid) to a quarter
  (softmax) fewer examples than the large one, and alone two to three times as many. Where towers
  take most of the FLOPs, as in the paper, equal FLOPs are close to equal examples.

A queue changes the prior odds of a pair, as the batch does, so the bias starts at them; they count
the batch and not the queue, which is empty at first. The rate is that of the batch size.
"""

from __future__ import annotations

import dataclasses

from study.config import Budget, Cell, Loss, Sigmoid, Softmax
from study.models.flops import step_flops
from sweeps.grids.glyphs.recipe import SEEDS, glyphs_cell, glyphs_study
from sweeps.study import Study

EXAMPLES = 2**19
BATCH_SIZES = (64, 256, 1024)
LOSSES: tuple[Loss, ...] = (Sigmoid(b_init="prior"), Softmax())
QUEUES = ((64, 3), (64, 15), (256, 3))  # batch size, and how many batches are stored
LARGE = max(BATCH_SIZES)


def at_equal_flops(cell: Cell, other: Cell) -> Cell:
    """The cell, with the number of examples for which it takes as many FLOPs as `other`."""
    flops = other.steps * step_flops(other).model
    steps = round(flops / step_flops(cell).model)
    return dataclasses.replace(cell, budget=Budget(examples=steps * cell.batch_size))


def cells() -> list[Cell]:
    cells = []
    for seed in SEEDS:
        for loss in LOSSES:
            plain = {
                size: glyphs_cell(batch_size=size, loss=loss, seed=seed, examples=EXAMPLES)
                for size in BATCH_SIZES
            }
            stored = [
                dataclasses.replace(
                    plain[size], loss=dataclasses.replace(loss, queue_examples=count * size)
                )
                for size, count in QUEUES
            ]
            cells += [*plain.values(), *stored]
            large = plain[LARGE]
            small = [cell for size, cell in plain.items() if size != LARGE]
            small += [c for c in stored if c.batch_size + c.loss.queue_examples == LARGE]
            cells += [at_equal_flops(cell, large) for cell in small]
    return cells


def study() -> Study:
    return glyphs_study(
        name="pairs-beyond",
        question="On glyphs: does a queue of stored negatives give a small batch what a large has?",
        cells=cells(),
    )
